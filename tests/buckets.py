"""A Google Cloud Storage on the loopback interface, for tests.

`gcp-storage-emulator` holds the objects; here conditional writes are added, which it ignores, and
faults can be injected.
"""

from __future__ import annotations

import io
import json
import re
import threading
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlparse

from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"
_OBJECT = re.compile(r"(?:/upload|/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?")


class Handler(RequestHandler):
    """Requests to the emulator, with conditions and generations."""

    lock = threading.Lock()  # its storage is not made for several threads
    generation = 0  # of the object that a request is about
    requests: ClassVar[list[str]] = []  # all that were received
    answers: ClassVar[list[int]] = []  # status of the next requests, which are refused
    refused: ClassVar[list[str]] = []  # requests whose path contains one of these are forbidden
    torn: ClassVar[list[None]] = []  # one for each of the next uploads of which half is stored

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
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = query.get("uploadType", [""])[0]
        if kind == "multipart" and self.torn:
            self.torn.pop()
            *head, rest = body.split(b"\n", 7)
            content, end = rest.rsplit(b"\n", 1)
            body = b"\n".join([*head, content[: len(content) // 2], end])
        self.rfile = io.BytesIO(body)  # for the emulator
        if self.command != "POST" or "upload_id" in query or kind not in ("multipart", "resumable"):
            return ""
        start = body[body.index(b"{") :].decode(errors="replace")
        return str(json.JSONDecoder().raw_decode(start)[0]["name"])

    def _handle(self, method) -> None:
        self.requests.append(f"{self.command} {self.path}")
        if self.answers:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_error(self.answers.pop())
            return
        if any(part in unquote(self.path) for part in self.refused):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        with self.lock:
            self.generation, query = self._generation()
            wanted = query.get("ifGenerationMatch")
            if wanted and int(wanted[0]) != self.generation and self.command != "GET":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(HTTPStatus.PRECONDITION_FAILED)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            with suppress(ConnectionError):  # the client has what it wanted, or was killed
                method()

    def end_headers(self) -> None:
        if self.command == "GET" and self.generation:
            self.send_header("x-goog-generation", str(self.generation))
        super().end_headers()

    def do_GET(self) -> None:
        self._handle(super().do_GET)

    def do_POST(self) -> None:
        self._handle(super().do_POST)

    def do_DELETE(self) -> None:
        self._handle(super().do_DELETE)

    def do_PUT(self) -> None:
        self._handle(super().do_PUT)


class Store:
    """A server with one bucket, on a free port.

    Args:
        port: to listen on; 0 chooses a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self.folders, self.requests = 0, Handler.requests
        self.answers, self.torn = Handler.answers, Handler.torn
        self.refused = Handler.refused
        self.storage = Storage(use_memory_fs=True)
        buckets.create_bucket(BUCKET, self.storage)
        self.server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, self.storage))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def environment(self) -> dict[str, str]:
        """Return the variables that lead clients here."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks Google for the kind of bucket
            "GOOGLE_CLOUD_PROJECT": "test",
            "EPATH_USE_TF": "false",
        }

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
