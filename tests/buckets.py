"""A Google Cloud Storage on the loopback interface, for tests.

    python -m tests.buckets [--port 8080] [--bucket NAME]

`gcp-storage-emulator` holds the objects; here conditional writes are added, which it ignores, and
faults can be injected: the next ones by a test in the same process, random ones by a POST of their
rates to /faults, from any process. GET /faults counts them.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import random
import re
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlparse

import click
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"
UNDISTURBED = "X-Undisturbed"  # header of requests that random faults spare
FAULTS = ("503", "no answer", "answer lost", "torn upload")
SILENCE = 3.0  # seconds before a connection without an answer is closed
_OBJECT = re.compile(r"(?:/upload|/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?")


class Handler(RequestHandler):
    """Requests to the emulator, with conditions and generations."""

    lock = threading.Lock()  # its storage is not made for several threads
    generation = 0  # of the object that a request is about
    requests: ClassVar[list[str]] = []  # all that were received
    answers: ClassVar[list[int]] = []  # status of the next requests, which are refused
    refused: ClassVar[list[str]] = []  # requests whose path contains one of these are forbidden
    torn: ClassVar[list[None]] = []  # one for each of the next uploads of which half is stored
    silent: ClassVar[list[float]] = []  # seconds without a byte before the next answers
    rates: ClassVar[dict[str, float]] = {}  # fault -> probability per request
    injected: ClassVar[Counter[str]] = Counter()  # random faults until now
    draw = random.Random(0)

    def _generation(self) -> tuple[int, dict[str, list[str]]]:
        url = urlparse(self.path)
        query = parse_qs(url.query)
        match = _OBJECT.fullmatch(url.path)
        if match is None:
            return 0, query
        name = unquote(match[2]) if match[2] else (query.get("name") or [self._name(query)])[0]
        stored = self.storage.objects.get(match[1], {}).get(name)
        return int(stored["generation"]) if stored else 0, query

    def _name(self, query: dict[str, list[str]]) -> str:
        """Return the name of the object that a request writes, from the JSON in its body."""
        body = self._body()
        kind = query.get("uploadType", [""])[0]
        if kind == "multipart":
            *head, rest = body.split(b"\n", 7)
            content, end = rest.rsplit(b"\n", 1)
            if self.torn:
                self.torn.pop()
                content = content[: len(content) // 2]
            # In base64: the emulator's parser of mail drops the \r of a content that ends with it.
            head[-1:] = [b"Content-Transfer-Encoding: base64", b""]
            body = b"\n".join([*head, base64.b64encode(content), end])
            self.headers.replace_header("Content-Length", str(len(body)))
        self.rfile = io.BytesIO(body)  # for the emulator
        if self.command != "POST" or "upload_id" in query or kind not in ("multipart", "resumable"):
            return ""
        start = body[body.index(b"{") :].decode(errors="replace")
        return str(json.JSONDecoder().raw_decode(start)[0]["name"])

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _random_fault(self) -> str:
        """Return the fault of this request, or ""."""
        if UNDISTURBED in self.headers:
            return ""
        query = parse_qs(urlparse(self.path).query)
        kind = query.get("uploadType", [""])[0]
        with self.lock:
            for fault, rate in self.rates.items():
                if fault == "torn upload" and kind not in ("multipart", "media"):
                    continue
                if self.draw.random() < rate:
                    self.injected[fault] += 1
                    return fault
        return ""

    def _configure_faults(self) -> None:
        """Set the rates of random faults, if they are posted, and answer with their counts."""
        if self.command == "POST":
            posted = json.loads(self._body())
            type(self).draw = random.Random(posted["seed"])
            self.rates.clear()
            self.rates.update(posted["rates"])
        answer = json.dumps(self.injected).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _serve(self, method) -> None:
        with suppress(ConnectionError):  # the client has what it wanted, or was killed
            self._handle(method)

    def _handle(self, method) -> None:
        if self.path == "/faults":
            self._configure_faults()
            return
        self.requests.append(f"{self.command} {self.path}")
        if self.silent:
            time.sleep(self.silent.pop())
        refused = any(part in unquote(self.path) for part in self.refused)
        fault = self._random_fault() if self.rates else ""
        if self.answers or refused or fault == "503":
            self._body()
            forbidden = HTTPStatus.FORBIDDEN if refused else HTTPStatus.SERVICE_UNAVAILABLE
            self.send_error(self.answers.pop() if self.answers else forbidden)
            return
        if fault == "no answer":
            self._body()
            time.sleep(SILENCE)
            self.close_connection = True
            return
        if fault == "answer lost":
            self.wfile, self.close_connection = io.BytesIO(), True
        with self.lock:
            if fault == "torn upload":
                self.torn.append(None)
            self._answer(method)

    def _answer(self, method) -> None:
        if self.torn and "uploadType=media" in self.path:
            self.torn.pop()
            body = self._body()
            self.rfile = io.BytesIO(body[: len(body) // 2])
        self.generation, query = self._generation()
        wanted = query.get("ifGenerationMatch")
        if wanted and int(wanted[0]) != self.generation and self.command != "GET":
            self._body()
            self.send_response(HTTPStatus.PRECONDITION_FAILED)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        method()

    def end_headers(self) -> None:
        if self.command == "GET" and self.generation:
            self.send_header("x-goog-generation", str(self.generation))
        super().end_headers()

    def do_GET(self) -> None:
        self._serve(super().do_GET)

    def do_POST(self) -> None:
        self._serve(super().do_POST)

    def do_DELETE(self) -> None:
        self._serve(super().do_DELETE)

    def do_PUT(self) -> None:
        self._serve(super().do_PUT)


class Store:
    """A server with one bucket.

    Args:
        port: to listen on; 0 chooses a free one.
        bucket: its name.
    """

    def __init__(self, port: int = 0, bucket: str = BUCKET) -> None:
        self.folders, self.requests = 0, Handler.requests
        self.answers, self.torn = Handler.answers, Handler.torn
        self.refused, self.silent = Handler.refused, Handler.silent
        self.storage = Storage(use_memory_fs=True)
        buckets.create_bucket(bucket, self.storage)
        self.server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, self.storage))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def environment(self) -> dict[str, str]:
        """Return the variables that lead clients here."""
        return environment(self.url)

    def folder(self, name: str) -> str:
        """Return the URL of a new folder."""
        self.folders += 1
        return f"gs://{BUCKET}/{self.folders}-{re.sub('[^a-z_]', '', name)}"

    def objects(self) -> list[str]:
        """Return the names of all objects."""
        return sorted(self.storage.objects.get(BUCKET, {}))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def environment(url: str) -> dict[str, str]:
    """Return the variables that lead clients to the server at a URL."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks Google for the kind of bucket
        "GOOGLE_CLOUD_PROJECT": "test",
        "EPATH_USE_TF": "false",
    }


@click.command()
@click.option("--port", default=0, show_default=True, help="To listen on; 0 chooses a free one.")
@click.option("--bucket", default=BUCKET, show_default=True)
@click.option("--until-input-ends", is_flag=True, help="End with the process that holds stdin.")
def main(port: int, bucket: str, until_input_ends: bool) -> None:
    """Serve one empty bucket until the process is killed, and print the variables of clients."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)  # each missing object
    store = Store(port, bucket)
    for name, value in store.environment().items():
        print(f"export {name}={value}", flush=True)
    if until_input_ends:
        sys.stdin.read()
        return
    store.thread.join()


if __name__ == "__main__":
    main()
