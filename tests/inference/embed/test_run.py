"""`satmip embed`: images of any kind to one file, equal to the library; bad ones are named."""

import csv
import json
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest
import shapely
from click.testing import CliRunner

import satmip_jax as sm
from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import InterruptedCommandError
from satmip_jax.evaluation.features import extract
from satmip_jax.evaluation.loading import load_model
from satmip_jax.inference.embed import run as module
from satmip_jax.inference.embed.parts import EmbedError
from satmip_jax.inference.embed.run import embed_files
from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.runtime import process_pool
from tests.conftest import full_disk
from tests.sources.geotiff_files import geotiff, picture

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def model(tiny_run):
    return sm.load(tiny_run, batch_size=8)


@pytest.fixture
def folder(tmp_path):
    """Twenty images of many sizes, in two folders, with a table of their places."""
    rows = ["path,longitude,latitude,label"]
    for i in range(20):
        path = tmp_path / "in" / f"{i % 2}" / f"{i:02d}.{('png', 'jpg')[i % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (20 + 3 * i, 90 - 2 * i, 3)
        cv2.imwrite(str(path), RNG.integers(0, 256, shape, np.uint8))
        rows.append(f"{i % 2}/{path.name},{i}.5,{-i},{'ab'[i % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path / "in"


def embed(model, paths, out, **options):
    lines = []
    report = embed_files(model, paths, out, progress=False, announce=lines.append, **options)
    return report, EmbeddingTable.open(out), lines


def test_records_beside_images_are_named_and_read_from_a_table(model, folder, tmp_path):
    """Three images of fMoW's layout: their JSON files are not read, one table of them is."""
    known = model.model.schema.fields["country_code"].vocabulary
    codes, records = (known[0], "TUV", "TUV"), []
    assert "TUV" not in known
    for code, path in zip(codes, sorted(folder.rglob("*.png")), strict=False):
        records.append({"file": path.name, "gsd": 0.5, "country_code": code})
        path.with_suffix(".json").write_text(json.dumps(records[-1]))
    report, _, lines = embed(model, [folder], tmp_path / "a.parquet")
    assert "3 JSON files beside the images are not read: join them to one table" in lines[-1]
    assert report.lines()[0].endswith(
        "20 rows, 32 numbers of the image; no row has a metadata vector"
    )
    (tmp_path / "m.json").write_text(json.dumps(records))  # as the line says
    options = {"metadata": str(tmp_path / "m.json"), "columns": "path=file"}
    report, table, _ = embed(model, [folder], tmp_path / "b.parquet", options=options)
    assert np.isfinite(table.metadata()).all(axis=1).sum() == 1
    assert report.lines()[0].endswith(
        "3 rows, 32 numbers of the image and 16 of the metadata (of 1)"
    )
    assert "country_code 100%; the model takes in location, utm" in report.lines()[1]


def test_vectors_are_those_of_the_library_for_the_same_files(model, folder, tmp_path):
    report, table, lines = embed(model, [folder, tmp_path / "table.csv"], tmp_path / "e.parquet")
    rows = table.rows(range(20))
    paths = [row["path"] for row in rows]
    assert sorted(paths) == sorted(str(path) for path in folder.rglob("*.*"))
    np.testing.assert_array_equal(table.images(), model.embed_images(paths, progress=False))
    records = [{"location": row["location"]} for row in rows]
    sizes = [cv2.imread(path).shape[1::-1] for path in paths]
    described = model.embed_metadata(records, image_sizes=sizes, progress=False)
    np.testing.assert_array_equal(table.metadata(), described)
    for row in rows:
        number = int(row["path"][-6:-4])
        assert row["location"] == [number + 0.5, -number]
        assert row["geometry"] == shapely.to_wkb(shapely.Point(row["location"]))
        assert (row["id"], row["label"]) == (row["path"], "ab"[number % 2])
    assert any("columns: path <- path" in line for line in lines)
    assert (report.rows, report.left_out_file) == (20, None)
    assert table.info["model"] == model.model.name
    assert table.info["parameters"] != ""


def test_each_record_describes_an_image_of_its_size(model, folder, tmp_path, monkeypatch):
    """A `gsd` counts per pixel of the file."""
    seen, encode = {}, model.encoder.metadata

    def spy(records, *, sizes, **options):
        for record, size in zip(records, sizes, strict=True):
            seen[record.numbers("location")] = tuple(size)
        return encode(records, sizes=sizes, **options)

    monkeypatch.setattr(model.encoder, "metadata", spy)
    _, table, _ = embed(model, [folder, tmp_path / "table.csv"], tmp_path / "e.parquet")
    sizes = {
        tuple(row["location"]): cv2.imread(row["path"]).shape[1::-1]
        for row in table.rows(range(20))
    }
    assert len(set(sizes.values())) == 20
    assert seen == sizes


def test_features_are_those_of_an_evaluation(tiny_run, tiny_shards_dir, model, tmp_path):
    dataset = ShardDataset(tiny_shards_dir, "val")
    for i in range(len(dataset)):
        (tmp_path / f"{i:02d}.jpg").write_bytes(dataset[i]["image"])
    _, table, _ = embed(model, [tmp_path], tmp_path / "e.parquet")
    expected = extract(load_model(tiny_run), dataset).by_kind["image"]
    np.testing.assert_allclose(table.images(), expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(table.metadata()).all()


def test_inputs_of_all_kinds_together_and_bad_ones_named(model, tmp_path):
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), picture(40, 30).transpose(1, 2, 0))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "a/x.png", "in/y.png")
        archive.writestr("broken.jpg", b"\xff\xd8\xff\xd9")
    geotiff(picture(64, 32), {None: {"cloud_cover": "12.5"}}, tmp_path / "t.tif")
    geotiff(picture(40, 40, dtype="uint16"), None, tmp_path / "deep.tif")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "t.tif").read_bytes()[:3000])
    names = ["a", "b", "z.zip", "t.tif", "deep.tif", "cut.tif", "a/x.png"]
    out = tmp_path / "e.parquet"
    options = {"tile": 32}
    report, table, _ = embed(model, [tmp_path / n for n in names], out, options=options)
    rows = {row["id"].removeprefix(f"{tmp_path}/"): row for row in table.rows(range(table.count))}
    assert set(rows) == {"a/x.png", "b/x.png", "z.zip/in/y.png", "t.tif#0,0", "t.tif#32,0"}
    tile = rows["t.tif#32,0"]
    assert [tile[name] for name in ("x", "y", "width", "height")] == [32, 0, 32, 32]
    assert tile["path"] == str(tmp_path / "t.tif")
    assert tile["cloud_cover"] == 12.5
    assert rows["a/x.png"]["x"] is None
    with (tmp_path / "e.left_out.csv").open() as file:
        left_out = [
            (name.removeprefix(f"{tmp_path}/"), reason) for name, reason in csv.reader(file)
        ]
    assert {name for name, _ in left_out[1:]} >= {"z.zip/broken.jpg", "a/x.png", "deep.tif#0,0"}
    assert any(name.startswith("cut.tif") for name, _ in left_out)
    assert sum(n for n, _ in report.left_out.values()) == len(left_out) - 1
    assert any("give --scale" in reason for reason in report.left_out)


def test_16_bits_are_scaled_by_the_stated_rule_only(model, tmp_path):
    geotiff(picture(40, 40, dtype="uint16"), None, tmp_path / "d.tif")
    with pytest.raises(EmbedError, match=r"none of the 1 inputs can be used: .*give --scale"):
        embed(model, [tmp_path / "d.tif"], tmp_path / "e.parquet")
    assert not list(tmp_path.glob("*.parts"))
    _, table, _ = embed(model, [tmp_path / "d.tif"], tmp_path / "e.parquet", scale="0,3000")
    values = picture(40, 40, dtype="uint16").astype(np.float64)
    scaled = np.rint(values.clip(0, 3000) * (255 / 3000)).astype(np.uint8).transpose(1, 2, 0)
    np.testing.assert_array_equal(table.images(), model.embed_images(scaled, progress=False))
    assert table.info["rendering"] == {"scale": [0.0, 3000.0]}


def test_worker_processes_give_the_same_rows(model, folder, tmp_path):
    _, here, _ = embed(model, [folder], tmp_path / "a.parquet")
    _, there, _ = embed(model, [folder], tmp_path / "b.parquet", workers=2)
    np.testing.assert_array_equal(here.images(), there.images())
    assert here.rows(range(20)) == there.rows(range(20))


def test_an_interrupted_run_does_no_finished_batch_again(model, folder, tmp_path, monkeypatch):
    _, expected, _ = embed(model, [folder], tmp_path / "whole.parquet")
    out = tmp_path / "e.parquet"
    monkeypatch.setattr(module, "PART_SECONDS", 0.0)  # a part per batch
    encode, done = module._encode, []

    def stop_after_two(model, batch):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(batch.rows[0].id)
        return encode(model, batch)

    monkeypatch.setattr(module, "_encode", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        embed(model, [folder], out)
    assert not out.exists()
    before, done[:] = list(done), []
    with pytest.raises(EmbedError, match="was started with another --bands or --scale"):
        embed(model, [folder], out, scale="percentile")
    monkeypatch.setattr(module, "_encode", lambda *a: done.append(a[1].rows[0].id) or encode(*a))
    report, table, _ = embed(model, [folder], out)
    assert report.resumed == 8 * (3 - len(done))
    assert not set(before[: 3 - len(done)]) & set(done)
    np.testing.assert_array_equal(table.images(), expected.images())
    assert table.rows(range(20)) == expected.rows(range(20))
    assert not list(tmp_path.glob("*.parts"))

    done.clear()
    again, _, _ = embed(model, [folder], out)
    assert (again.resumed, done) == (20, [])
    (folder / "0" / "00.jpg").unlink()
    with pytest.raises(EmbedError, match="holds embeddings of other inputs, options or another"):
        embed(model, [folder], out)


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", ["cut", "deleted"])
def test_inputs_of_a_lost_part_are_done_again_and_no_row_twice(
    model, folder, tmp_path, monkeypatch, damage
):
    out = tmp_path / "e.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(module, "PART_SECONDS", 0.0)
        patch.setattr(module, "_finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed(model, [folder], out)
    _, lost, last = sorted((tmp_path / "e.parquet.parts").glob("*.parquet"))
    assert (lost.stem, last.stem) == ("000000000008-000000000016", "000000000016-000000000020")
    if damage == "cut":
        lost.write_bytes(lost.read_bytes()[:100])
    else:
        lost.unlink()
    report, table, _ = embed(model, [folder], out)  # one part: 8 to 20
    assert (report.resumed, report.rows) == (8, 20)
    paths = [row["path"] for row in table.rows(range(table.count))]
    assert paths == sorted(map(str, folder.rglob("*.*")))
    np.testing.assert_array_equal(table.images(), model.embed_images(paths, progress=False))


@pytest.mark.parametrize("change", ["file", "tile", "table"])
def test_a_changed_input_is_refused(model, folder, tmp_path, monkeypatch, change):
    def stop(*_):
        raise KeyboardInterrupt

    paths, out = [folder, tmp_path / "table.csv"], tmp_path / "e.parquet"
    monkeypatch.setattr(module, "_encode", stop)
    with pytest.raises(KeyboardInterrupt):
        embed(model, paths, out)
    options = {}
    if change == "file":
        (folder / "1" / "01.png").write_bytes((folder / "1" / "05.png").read_bytes())
    elif change == "table":
        table = tmp_path / "table.csv"
        table.write_text(table.read_text().replace("3.5,-3", "3.5,-4"))
    else:
        paths, options = [folder], {"tile": 32}
    with pytest.raises(EmbedError, match=r"was started with other (inputs|options)"):
        embed(model, paths, out, options=options)


def test_a_full_disk_is_one_sentence_and_leaves_no_partial_file(model, folder, tmp_path):
    model.embed_images(np.zeros((32, 32, 3), np.uint8), progress=False)  # compiled
    with full_disk(2000), pytest.raises(EmbedError, match="the same command resumes"):
        embed(model, [folder], tmp_path / "e.parquet")
    assert not list(tmp_path.glob("*.parquet"))
    assert embed(model, [folder], tmp_path / "e.parquet")[0].rows == 20


def test_wrong_requests_are_one_sentence(model, folder, tmp_path):
    out = tmp_path / "e.parquet"
    cases = [
        ([folder], out, {"options": {"asset": "visual"}}, "--asset: an option of other inputs"),
        ([folder], tmp_path / "none" / "e.parquet", {}, "no folder"),
        ([folder], out, {"bands": "x"}, "--bands"),
        ([tmp_path / "none"], out, {}, "no file or folder at"),
        ([folder], tmp_path / "table.csv", {}, "holds other data: choose another --out"),
    ]
    for paths, target, options, message in cases:
        with pytest.raises(sm.errors.SatmipError, match=message):
            embed(model, paths, target, **options)


def test_the_command(tiny_run, folder, tmp_path, monkeypatch):
    flags = ["--model", str(tiny_run), "--out", str(tmp_path / "e.parquet"), "--classes", "folders"]
    result = CliRunner().invoke(cli, ["embed", str(folder), *flags])
    assert result.exit_code == 0, result.output
    assert "images without a table" in result.output
    assert "20 rows, 32 numbers of the image; no row has a metadata vector" in result.output
    assert EmbeddingTable.open(tmp_path / "e.parquet").rows([0])[0]["label"] == "0"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "embed_files", interrupt)
    result = CliRunner().invoke(cli, ["embed", str(folder), *flags])
    assert isinstance(result.exception, InterruptedCommandError)
    assert "the same command resumes" in str(result.exception)


def test_results_of_processes_come_in_order_and_errors_are_raised():
    assert list(process_pool.map_in_order(abs, range(-9, 0), workers=2)) == list(range(9, 0, -1))
    with pytest.raises(ValueError, match="invalid literal"):
        list(process_pool.map_in_order(int, ["1", "x", "2"], workers=1))


@pytest.mark.slow
def test_a_killed_command_resumes(tiny_run, tmp_path):
    for i in range(600):
        cv2.imwrite(str(tmp_path / f"{i:04d}.jpg"), RNG.integers(0, 256, (64, 64, 3), np.uint8))
    code = (
        "import satmip_jax.inference.embed.run as e; e.PART_SECONDS = 0.0\n"
        "from satmip_jax.cli import main; main()"
    )
    out = tmp_path / "e.parquet"
    command = [sys.executable, "-c", code, "embed", str(tmp_path), "--out", str(out)]
    command += ["--model", str(tiny_run), "--batch-size", "8"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    parts = tmp_path / "e.parquet.parts"
    while running.poll() is None and len(list(parts.glob("*.parquet"))) < 3:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finished = len(list(parts.glob("*.parquet")))
    assert 3 <= finished < 75
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    paths = [str(tmp_path / f"{i:04d}.jpg") for i in range(600)]
    table = EmbeddingTable.open(out)
    assert [row["path"] for row in table.rows(range(600))] == paths
    assert json.loads(json.dumps(table.info["inputs"]["unusable"])) == {}
    features = sm.load(tiny_run, batch_size=8).embed_images(paths, progress=False)
    np.testing.assert_allclose(table.images(), features, rtol=1e-4, atol=1e-5)
