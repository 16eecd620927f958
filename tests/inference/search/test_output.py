"""What `satmip search` prints and writes; its page holds nothing that a file could inject."""

import base64
import csv
import io
import json
import zipfile

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

from satmip_jax.cli import cli
from satmip_jax.inference.embed.table import EmbeddingTable, EmbeddingTableError
from satmip_jax.inference.embed.writer import Row, to_table, write_table
from satmip_jax.inference.search import page as search_page
from satmip_jax.inference.search.output import print_results, summary, to_json, write_results
from satmip_jax.inference.search.page import write_search_page
from satmip_jax.inference.search.query import QueryError
from satmip_jax.inference.search.run import rendering_of, search
from satmip_jax.metadata.record import Metadata
from tests.inference.search.test_run import INFO
from tests.report.pages import HOSTILE, open_page

FIELDS = {"timestamp": "2018-07-01T10:30Z", "location": [-58.38, -34.6], "gsd": 0.5}


def invoke(*arguments):
    return CliRunner().invoke(cli, ["search", *map(str, arguments)])


def picture(path, colour):
    cv2.imwrite(str(path), np.full((40, 60, 3), colour, np.uint8))
    return path.read_bytes()


@pytest.fixture
def found(tmp_path):
    """Files of every kind that a row may name: images, a tile, a member of a zip, and no images."""
    red = picture(tmp_path / "red.png", (0, 0, 255))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("in/red.png", red)
    (tmp_path / "text.jpg").write_text("no image")
    places = {
        "red": tmp_path / "red.png",
        "zipped": f"{tmp_path}/a.zip/in/red.png",
        "missing": tmp_path / "gone.png",
        "text": tmp_path / "text.jpg",
        "folder": tmp_path,
        "device": "/dev/zero",
        "remote": "https://example.org/a.png",
        "nul": "a\0b",
        "tile": tmp_path / "red.png",  # tiles are of TIFFs alone
    }
    rows = [
        Row(name, str(path), (0, 0, 9, 9) if name == "tile" else None, "roof", None, parsed(FIELDS))
        for name, path in places.items()
    ]
    return embeddings(tmp_path, rows), tmp_path


def parsed(values):
    return Metadata.parse(values).values


def embeddings(folder, rows, **info):
    vectors = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    write_table(folder / "e.parquet", [to_table(rows, vectors)], INFO | info)
    return folder / "e.parquet"


def test_images_that_cannot_be_read_have_a_placeholder(found):
    path, folder = found
    page = open_page(write_search_page(search(path, ids=["red"], count=20), folder / "p.html"))
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 2  # the query and the member of a zip
    for uri in pictures:
        data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert pixels.shape == (60, 60, 3)
        assert np.abs(pixels.astype(int) - (0, 0, 255)).max() < 4
    assert page.text.count("cannot be read") == 8
    assert "7 of the images cannot be read" in page.text
    assert "34.6000° S, 58.3800° W 2018-07-01 10:30 gsd 0.5" in page.text


def test_hostile_texts_stay_text(tmp_path):
    path = tmp_path / "a.png"
    picture(path, 9)
    rows = [
        Row(f"{i}{text}\x1b[31m", str(path), None, text, None, parsed({"sensor_platform": text}))
        for i, text in enumerate(HOSTILE)
    ]
    file = embeddings(tmp_path, rows, model=HOSTILE[1])
    results = search(file, ids=[rows[0].id], where=[f'label!="{HOSTILE[3]}"'])
    page = open_page(write_search_page(results, tmp_path / "page.html"))
    for text in HOSTILE[:2]:
        assert text not in page.source
        assert text in page.text
    assert "\x1b" not in page.source
    screen = Console(file=io.StringIO(), width=400)
    print_results(results, screen)
    shown = screen.file.getvalue()
    assert "\x1b" not in shown
    assert HOSTILE[1] in shown
    assert json.loads(to_json(results))["hits"][0]["rank"] == 1


def test_ids_are_not_broken_in_words(tmp_path):
    """Fields give way to ids, which break at slashes; a log has lines of any length."""
    values = FIELDS | {"sensor_platform": "SENTINEL2", "country_code": "DEU", "cloud_cover": 3}
    values |= {"pixel_size": [0.0001285, 8.99e-05]}
    names = [f"scenes/of_germany/HerbaceousVegetation_{i}.tif" for i in range(3)]
    file = embeddings(tmp_path, [Row(name, name, values=parsed(values)) for name in names])
    results = search(file, ids=names[:1])

    def shown(width, **options):
        screen = Console(file=io.StringIO(), width=width, no_color=True, **options)
        print_results(results, screen)
        return screen.file.getvalue()

    narrow = shown(90, force_terminal=True)
    assert {len(line) for line in narrow.splitlines() if line.startswith(("┡", "│"))} == {90}
    assert "scenes/of_germany/ " in narrow
    assert " HerbaceousVegetation_2.tif " in narrow
    assert "SENTINEL2" not in narrow
    log = shown(80)
    assert f" {names[2]} " in log
    assert "gsd (m)" in log
    assert "SENTINEL2" in log
    assert "pixel size" not in log


def test_a_rank_says_how_to_filter(tiny_run, tiny_embeddings):
    results = search(tiny_embeddings, model=tiny_run, where="latitude=50", count=1)
    sentence = summary(results)
    assert "fit to latitude=50 (= describes; latitude>=50 or latitude<=50 would filter)" in sentence
    for filters in ("latitude>=50", "latitude<=50"):
        search(tiny_embeddings, model=tiny_run, where=f"latitude=50 {filters}", count=1)


def test_rows_are_written_in_three_formats(found):
    path, folder = found
    results = search(path, ids=["red"], count=3)
    for suffix in ("json", "csv", "parquet"):
        write_results(results, folder / f"hits.{suffix}")
    hits = json.loads((folder / "hits.json").read_text())["hits"]
    rows = list(csv.DictReader((folder / "hits.csv").read_text().splitlines()))
    table = pq.read_table(folder / "hits.parquet")
    assert b"geo" in table.schema.metadata
    for i, hit in enumerate(results.hits):
        assert hits[i]["id"] == rows[i]["id"] == table["id"][i].as_py() == hit.values["id"]
        assert float(rows[i]["score"]) == hits[i]["score"] == table["score"][i].as_py() == hit.score
        assert (float(rows[i]["longitude"]), rows[i]["gsd"]) == (-58.38, "0.5 0.5")
        assert hits[i]["timestamp"] == rows[i]["timestamp"] == "2018-07-01T10:30:00Z"
        assert (rows[i]["metadata"], hits[i]["metadata"]) == ("", None)
    with pytest.raises(QueryError, match=r"hits.txt: expected a file that ends in .json, .csv"):
        write_results(results, "hits.txt")


def test_the_page_shows_a_bounded_number_of_pictures(found, monkeypatch):
    monkeypatch.setattr(search_page, "MAX_HITS", 2)
    path, folder = found
    page = open_page(write_search_page(search(path, ids=["red"], count=5), folder / "p.html"))
    assert "3 more are not shown" in page.text


def test_a_rendering_is_checked(tmp_path):
    rows = [Row("a", "a.png")]
    good = {"bands": [4, 3, 2], "scale": [0, 3000]}
    table = EmbeddingTable.open(embeddings(tmp_path, rows, rendering=good))
    assert rendering_of(table).to_json() == {"bands": [4, 3, 2], "scale": [0.0, 3000.0]}
    for bad in ({"bands": [0, 1, 2]}, {"bands": "x"}, {"scale": [3]}, {"scale": [5, 1]}):
        table = EmbeddingTable.open(embeddings(tmp_path, rows, rendering=bad))
        with pytest.raises(EmbeddingTableError, match="rendering of its description is"):
            rendering_of(table)


def test_the_command_searches_and_writes(tiny_run, tiny_embeddings, tmp_path):
    image = tiny_embeddings.parent / "scene-5.jpg"
    run = invoke(
        *(tiny_embeddings, "--model", tiny_run, "--image", image, "--where", "location=12.5,41.9"),
        *("--where", "latitude>-91", "--count", 3, "--page", tmp_path / "p.html"),
    )
    assert (run.exit_code, "latitude>-91: expected" in str(run.exception)) == (1, True)
    run = invoke(
        *(tiny_embeddings, "--model", tiny_run, "--image", image, "--where", "location=12.5,41.9"),
        *("--where", "latitude>-90", "--count", 3, "--page", tmp_path / "p.html"),
        *("--out", tmp_path / "hits.csv"),
    )
    assert run.exit_code == 0, run.exception
    line = "24 rows, ranked by similarity to 1 image and fit to location=12.5,41.9; 23 rows pass"
    assert line in run.output
    assert len((tmp_path / "hits.csv").read_text().splitlines()) == 4
    page = open_page(tmp_path / "p.html")
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4
    assert "sought: location=12.5,41.9 filter: latitude>-90" in page.text


def test_the_command_prints_json(tiny_embeddings):
    run = invoke(tiny_embeddings, "--id", "scene-3", "--where", "label==nothing", "--json")
    assert run.exit_code == 0, run.exception
    assert json.loads(run.stdout)["hits"] == []
    run = invoke(tiny_embeddings, "--id", "scene-3", "--where", "label==nothing")
    assert "0 rows pass label==nothing (0 do not state it); nothing found" in run.output
