"""Damaged and malicious tables, folders and zips."""

import json
import pickle
import zipfile

import pytest

from satmip_jax.metadata.record import Problems
from satmip_jax.sources import folder, json_rows, tables
from satmip_jax.sources.base import SourceError, UnreadableExample
from satmip_jax.sources.folder import Folder
from tests.sources.pictures import picture, read_all, write_csv, write_images


def test_bad_rows_are_counted_and_left_out(tmp_path):
    root = write_images(
        tmp_path / "images", ["a.png", "b.png", "c.png", "x/same.png", "y/same.png", "x/one.png"]
    )
    (root / "notes.txt").write_text("not an image, not counted")
    rows = [
        ("a.png", "A", "train"),
        ("a.png", "A", "train"),
        ("./x//one.png", "B", "val"),
        ("gone.png", "B", "val"),
        ("same.png", "B", "val"),
        ("", "B", "val"),
        ("b.png", "B", ""),
        ("c.png", "B", "../../evil"),
        ("x/same.png", "L" * 500, "val"),
    ]
    keys = ("path", "label", "split")
    table = write_csv(tmp_path / "t.csv", [dict(zip(keys, row, strict=True)) for row in rows])
    with table.open("a") as file:
        file.write("too,many,columns,here\nfew\n")
    source = Folder([root], table)
    assert [ref.id for ref in source.refs()] == ["a.png", "x/one.png"]
    assert source.skipped == {
        "another row of the same image": 1,
        "row without an image": 1,
        "row whose path fits several images": 1,
        "row without a path": 1,
        "row without a split": 1,
        "row with an unusable split": 1,
        "label of more than 128 characters": 1,
        "row with too few or too many columns": 2,
        "image without a row": 1,  # y/same.png
    }
    assert source.refs() == source.refs()
    assert sum(source.skipped.values()) == 10  # counted once, however often it is listed


def test_ids_from_a_column(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "b.png", "c.png"])
    rows = [{"path": f"{c}.png", "scene": s} for c, s in (("a", "s1"), ("b", "s1"), ("c", ""))]
    source = Folder([root], write_csv(tmp_path / "t.csv", rows), "id=scene")
    assert [ref.id for ref in source.refs()] == ["s1"]
    assert source.skipped["another row of the same id"] == 1
    assert source.skipped["row without an id"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "in/../../secret.png",
        "..\\secret.png",
        "{absolute}",
        "C:\\secret.png",
        "//server/secret.png",
        "in/a.png\0../secret.png",
    ],
)
def test_no_path_leads_out_of_the_folder(path, tmp_path):
    root = write_images(tmp_path / "images", ["in/a.png"])
    (tmp_path / "secret.png").write_bytes(picture(1))
    path = path.format(absolute=tmp_path / "secret.png")
    (tmp_path / "t.jsonl").write_text(
        "\n".join(json.dumps({"path": p}) for p in ("in/a.png", path))
    )
    source = Folder([root], tmp_path / "t.jsonl")
    assert [ref.id for ref in source.refs()] == ["in/a.png"]
    assert source.skipped == {"path that leads out of its folder": 1}


def test_no_link_leads_out_of_the_folder(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "inner/b.png"])
    outside = write_images(tmp_path / "outside", ["secret.png"])
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "folder").symlink_to(outside)
    rows = [{"path": p} for p in ("a.png", "link.png", "inside.png", "folder/secret.png")]
    source = Folder([root], write_csv(tmp_path / "t.csv", rows))
    assert [ref.id for ref in source.refs()] == ["a.png", "inside.png"]
    assert source.skipped == {
        "symbolic link that leads out of its folder": 1,
        "folder that is a symbolic link": 1,
        "row without an image": 2,
        "image without a row": 1,
    }


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "chips.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("top/a.png", picture(1))
        file.writestr("top/zeros.png", bytes(200_000))
        file.writestr("../evil.png", picture(2))
        file.writestr("/etc/evil.png", picture(2))
        file.writestr("top/broken.png", picture(3))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("top/broken.png").header_offset + 30 + len("top/broken.png")
    data[start + 20] ^= 0xFF
    path.write_bytes(data)
    return path


def test_zips_are_read_in_place_and_bounded(archive, tmp_path, monkeypatch):
    names = ("a.png", "zeros.png", "broken.png", "evil.png")
    write_csv(tmp_path / "t.csv", [{"path": name} for name in names])
    before = sorted(tmp_path.rglob("*"))
    source = pickle.loads(pickle.dumps(Folder([archive], tmp_path / "t.csv")))
    refs = {ref.id: ref for ref in source.refs()}
    assert list(refs) == ["top/a.png", "top/broken.png", "top/zeros.png"]
    assert source.skipped == {
        "zip member whose path leads out of the zip": 2,
        "row without an image": 1,
    }
    assert source.read(refs["top/a.png"], Problems()).image == picture(1)
    with pytest.raises(UnreadableExample, match="damaged zip member"):
        source.read(refs["top/broken.png"], Problems())
    monkeypatch.setattr(folder, "MAX_IMAGE_BYTES", 100_000)
    with pytest.raises(UnreadableExample, match="more than 100,000 bytes"):
        source.read(refs["top/zeros.png"], Problems())
    pickle.dumps(source)  # with its zip open
    assert sorted(tmp_path.rglob("*")) == before
    archive.write_bytes(b"PK not a zip")
    with pytest.raises(SourceError, match="cannot be read as a zip"):
        Folder([archive], tmp_path / "t.csv").refs()


def test_the_same_path_in_two_places(tmp_path):
    for name in ("one", "two"):
        write_images(tmp_path / name, ["a.png", f"{name}.png"])
    rows = [{"path": p} for p in ("a.png", "one.png", "two.png")]
    source = Folder([tmp_path / "one", tmp_path / "two"], write_csv(tmp_path / "t.csv", rows))
    found, _ = read_all(source)
    assert found["a.png"].image == (tmp_path / "one" / "a.png").read_bytes()
    assert len(found) == 3
    assert source.skipped == {"file of the same path and content as another": 1}


def test_different_images_of_the_same_path_are_not_mixed_up(tmp_path):
    one = write_images(tmp_path / "one", ["b.png", "a.png"])
    (one / "data.zip").write_bytes(b"")
    with zipfile.ZipFile(one / "data.zip", "w") as file:
        file.writestr("a.png", picture(7))
    rows = [{"path": "a.png", "label": "x"}, {"path": "b.png", "label": "y"}]
    source = Folder([one], write_csv(tmp_path / "t.csv", rows))
    assert list(read_all(source)[0]) == ["b.png"]
    assert source.skipped == {
        "file of the same path as another, of other content": 1,
        "row whose path fits several images": 1,
        "image without a row": 1,
    }


def test_a_deleted_file_is_one_bad_example(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    source = Folder([root], write_csv(tmp_path / "t.csv", [{"path": "a.png"}]))
    (ref,) = source.refs()
    (root / "a.png").unlink()
    with pytest.raises(UnreadableExample, match="cannot be read"):
        source.read(ref, Problems())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read as csv|no column|which column"),
        ("t.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("t.csv.gz", b"\x1f\x8b nothing", "cannot be read as csv"),
        ("t.jsonl", b"[1, 2]\nnull\n", "no column of image paths"),
        ("t.csv", b"path,path\na.png,a.png\n", "several columns 'path'"),
        ("t.csv", b"PK\x03\x04\x14\0\0\0", "not text but binary: export the table as CSV"),
        ("t.txt", b"path\na.png\n", "not a table"),
    ],
)
def test_files_that_are_no_tables(name, content, message, tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        Folder([root], tmp_path / name).refs()


def test_long_tables_and_lines_are_rejected(tmp_path, monkeypatch):
    root = write_images(tmp_path / "images", ["a.png", "b.png"])
    lines = [json.dumps({"path": "a.png"}), json.dumps({"path": "b.png", "x": "y" * 3000})]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(json_rows, "MAX_LINE", 1000)
    source = Folder([root], tmp_path / "t.jsonl")
    assert len(source.refs()) == 1
    assert source.skipped["row that is too long"] == 1
    monkeypatch.setattr(tables, "MAX_ROWS", 1)
    write_csv(tmp_path / "t.csv", [{"path": "a.png"}, {"path": "b.png"}])
    with pytest.raises(SourceError, match="more than 1 rows"):
        Folder([root], tmp_path / "t.csv").refs()
