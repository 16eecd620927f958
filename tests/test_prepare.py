"""Preparation: what is stored, what is counted, and that nothing interrupts it for good."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from satmip_jax import pool
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.metadata.schema import Schema, StatsAccumulator
from satmip_jax.prepare import PrepareError, prepare
from satmip_jax.prepare_shard import PixelSums
from satmip_jax.shards import ShardDataset
from satmip_jax.sources import Example, Ref, UnreadableExample
from satmip_jax.sources.eurosat import EuroSAT

REPOSITORY = Path(__file__).resolve().parents[1]


def jpeg(seed: int, width: int = 24, height: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


class Made:
    """A source made here: example i is given by `make(i)`."""

    name = "made"
    classes: tuple[str, ...] = ("barn", "zoo")
    license = "none"
    homepage = "https://example.org"
    context_ratio: float | None = None

    def __init__(self, train: int = 10, val: int = 3, **changes: dict[int, object]) -> None:
        self.options = {"train": train}
        self.skipped = Counter({"left out": 2})
        self.counts = {"train": train, "val": val}
        self.changes = changes.get("changes", {})

    def refs(self) -> list[Ref]:
        return [
            Ref(f"{split}/{i:03d}", split, (i,))
            for split, n in self.counts.items()
            for i in range(n)
        ]

    def read(self, ref: Ref, problems: Problems) -> Example:
        (i,) = ref.location
        raw = {"gsd": 0.5 + i, "location": [10.0, 50.0], "country_code": "DEU" if i % 2 else None}
        example = {
            "image": jpeg(i, 30 + i, 40),
            "metadata": Metadata.parse(raw, problems),
            "label": "zoo" if i % 2 else "barn",
            "box": None,
        }
        change = self.changes.get(i)
        if isinstance(change, Exception):
            raise change
        return Example(ref.id, **{**example, **(change or {})})


def make(out: Path, source=None, **options):
    options = {"image_size": 16, "shard_size": 4, "workers": 0, "progress": False, **options}
    return prepare(source or Made(), out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that the folder offers; the report tells its time, so not that."""
    return {
        p.name: p.read_bytes()
        for p in sorted(folder.iterdir())
        if p.is_file() and p.name != "prepare_report.json"
    }


# --- what is stored -------------------------------------------------------------------------------


def test_stores_squares_and_metadata_that_follow(tmp_path):
    report = make(tmp_path / "out")
    assert report.splits == {"train": 10, "val": 3}
    data = ShardDataset(tmp_path / "out", "train")
    assert [data[i]["id"] for i in range(10)] == [f"train/{i:03d}" for i in range(10)]
    assert [data[i]["label"] for i in range(4)] == [0, 1, 0, 1]
    for i in (0, 7):
        record = data[i]
        assert Image.open(io.BytesIO(record["image"])).size == (16, 16)
        # the whole image, (30 + i) x 40 pixels of 0.5 + i metres, became 16 x 16
        gsd = ((0.5 + i) * (30 + i) / 16, (0.5 + i) * 40 / 16)
        np.testing.assert_allclose(record["metadata"].values["gsd"], gsd, rtol=1e-6)
    assert "country_code" not in data[0]["metadata"].values


def test_schema_holds_the_statistics_of_train(tmp_path):
    make(tmp_path / "out")
    schema = Schema.load(tmp_path / "out" / "schema.json")
    assert schema.splits == {"train": 10, "val": 3}
    assert schema.classes == ("barn", "zoo")
    assert schema.provenance["license"] == "none"
    assert schema.provenance["image_size"] == 16
    assert schema.fields["gsd"].count == 10
    assert schema.fields["country_code"].vocabulary == ("DEU",)
    data = ShardDataset(tmp_path / "out", "train")
    logs = np.log([data[i]["metadata"].values["gsd"] for i in range(10)])
    np.testing.assert_allclose(schema.fields["gsd"].mean, logs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(schema.fields["gsd"].std, logs.std(0), rtol=1e-5)
    stored = [np.asarray(Image.open(io.BytesIO(data[i]["image"]))) for i in range(10)]
    pixels = np.stack(stored) / 255  # after JPEG, so only nearly what was summed
    np.testing.assert_allclose(schema.image_mean, pixels.mean((0, 1, 2)), atol=0.01)
    np.testing.assert_allclose(schema.image_std, pixels.std((0, 1, 2)), atol=0.02)


def test_pixel_sums_are_those_of_numpy():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 7, 9, 3), np.uint8)
    sums, part = PixelSums(), PixelSums()
    for image in images[:2]:
        sums.add(image)
    for image in images[2:]:
        part.add(image)
    sums.merge(part)
    mean, std = sums.finish()
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-12)
    flat = PixelSums()
    flat.add(np.full((4, 4, 3), 7, np.uint8))
    assert flat.finish() == ((7 / 255,) * 3, (1.0,) * 3)


def test_jpegs_of_the_right_size_are_stored_verbatim(tmp_path):
    image = jpeg(1, 16, 16)
    make(tmp_path / "out", Made(changes={2: {"image": image}}))
    assert ShardDataset(tmp_path / "out", "train")[2]["image"] == image


def test_boxes_are_cut_with_context(tmp_path):
    source = Made(changes={0: {"image": jpeg(0, 100, 80), "box": (10, 20, 20, 30)}})
    source.context_ratio = 2.0
    make(tmp_path / "out", source)
    # a side of 60 around (20, 35), shifted to (0, 5)
    values = ShardDataset(tmp_path / "out", "train")[0]["metadata"].values
    np.testing.assert_allclose(values["gsd"], (0.5 * 60 / 16,) * 2, rtol=1e-6)
    east, north = 30 - 50, 40 - 35  # of the centre, in pixels
    longitude = 10 + east * 0.5 / (111_320 * np.cos(np.radians(50)))
    np.testing.assert_allclose(values["location"], (longitude, 50 + north * 0.5 / 111_320), 1e-6)
    with pytest.raises(PrepareError, match=r"context_ratio was 2\.0 and is now 1\.5"):
        make(tmp_path / "out", source, context_ratio=1.5)


def test_limit_spreads_and_splits_choose(tmp_path):
    make(tmp_path / "out", Made(train=20), limit=4, splits=["train"])
    data = ShardDataset(tmp_path / "out", "train")
    assert [r[-3:] for r in data.ids(range(4))] == ["000", "005", "010", "015"]
    assert data.schema.splits == {"train": 4}


def test_name_and_statistics_of_another_folder(tmp_path):
    make(tmp_path / "first")
    source = Made(train=0, val=5)
    with pytest.raises(PrepareError, match=r"no split 'train' to take statistics from .*is val"):
        make(tmp_path / "second", source)
    report = make(tmp_path / "second", source, statistics_from=tmp_path / "first", name="other")
    first, second = (Schema.load(tmp_path / p / "schema.json") for p in ("first", "second"))
    assert second.fields == first.fields
    assert second.image_mean == first.image_mean
    assert second.splits == {"val": 5}
    assert report.statistics == os.fspath(tmp_path / "first")
    assert (tmp_path / "second" / "other-val.array_record-00000-of-00002").exists()
    with pytest.raises(PrepareError, match="no prepared data there"):
        make(tmp_path / "third", source, statistics_from=tmp_path / "nowhere")


def test_without_labels(tmp_path):
    source = Made(changes={i: {"label": None} for i in range(10)})
    source.classes = ()
    make(tmp_path / "out", source)
    assert ShardDataset(tmp_path / "out", "train")[0]["label"] == -1


# --- what is counted ------------------------------------------------------------------------------


BAD = {
    0: (UnreadableExample("its JSON record is not JSON"), "its JSON record is not JSON"),
    1: ({"image": b"GIF89a"}, "not a JPEG, PNG, TIFF or WebP file"),
    2: ({"image": jpeg(0)[:-40]}, "truncated JPEG"),
    3: ({"box": (0, 0, 1, 50)}, "box under 2 pixels"),
    5: ({"box": (500, 0, 50, 50)}, "box outside the image"),
    6: ({"box": (0, float("nan"), 50, 50)}, "box is not finite"),
    7: ({"label": "volcano"}, "unknown class 'volcano'"),
    8: ({"image": jpeg(0, 90, 80)}, "90x80 pixels, more than the limit of 5,000"),
}


def test_bad_examples_are_counted_and_named(tmp_path, capsys):
    source = Made(val=0, changes={i: change for i, (change, _) in BAD.items()})
    report = make(tmp_path / "out", source, max_pixels=5000)
    assert report.splits == {"train": 2}
    expected = [("train", f"train/{i:03d}", reason) for i, (_, reason) in BAD.items()]
    assert report.bad == expected
    written = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert [tuple(row.values()) for row in written["bad"]] == expected
    assert written["splits"] == {"train": 2}
    assert written["skipped"] == {"left out": 2}
    data = ShardDataset(tmp_path / "out", "train")
    assert data.ids(range(2)) == ["train/004", "train/009"]

    report.show(Console(width=100))
    shown = capsys.readouterr().out
    for text in ("2 examples", "truncated JPEG", "train/002", "left out", "country_code", "train"):
        assert text in shown


def test_problems_are_counted_for_what_is_stored(tmp_path):
    report = make(tmp_path / "out", Made(changes={1: UnreadableExample("gone")}))
    # train 0, 2, 4, 6, 8 and val 0, 2 have no country; example 1 is not stored
    assert report.problems.count("country_code", "missing") == 7
    assert report.problems.count("timestamp", "missing") == 13 - 2
    assert report.problems.count("gsd") == 0


def test_a_shard_of_bad_examples_is_empty_and_tfds_can_read_it(tmp_path):
    import tensorflow_datasets as tfds

    make(tmp_path / "out", Made(changes={i: UnreadableExample("gone") for i in range(4, 8)}))
    data = ShardDataset(tmp_path / "out", "train")
    ids = [f"train/{i:03d}" for i in (0, 1, 2, 3, 8, 9)]
    assert data.ids(range(len(data))) == ids
    builder = tfds.builder_from_directory(tmp_path / "out")
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert [source[i]["id"].decode() for i in range(len(source))] == ids


def test_ids_from_file_names_cannot_do_harm(tmp_path, capsys):
    class Named(Made):
        def refs(self):
            names = ["ok", "\x1b[2Jclear", "\udcff.jpg", "x" * 2000, "[bold]"]
            return [Ref(name, "train", (1,)) for name in names]

    report = make(tmp_path / "out", Named())
    assert ShardDataset(tmp_path / "out", "train").ids([0, 1]) == ["ok", "[bold]"]
    assert report.bad_reasons() == {"its id is too long or cannot be printed": 3}
    report.show(Console(width=100))
    assert "\x1b[2J" not in capsys.readouterr().out


def test_nothing_usable_is_an_error(tmp_path):
    gone = {i: UnreadableExample("gone") for i in range(10)}
    with pytest.raises(PrepareError, match=r"no example of made .* \(13 x gone\): .*report\.json"):
        make(tmp_path / "a", Made(changes=gone))
    assert not (tmp_path / "a" / "schema.json").exists()
    assert len(json.loads((tmp_path / "a" / "prepare_report.json").read_text())["bad"]) == 13
    with pytest.raises(PrepareError, match="no training example"):
        make(tmp_path / "b", Made(val=12, changes=gone))
    with pytest.raises(PrepareError, match="the source lists no examples"):
        make(tmp_path / "c", Made(train=0, val=0))


def test_a_split_of_bad_examples_is_empty(tmp_path):
    import tensorflow_datasets as tfds

    source = Made(train=10, val=2, changes={i: UnreadableExample("gone") for i in range(2)})
    assert make(tmp_path / "out", source).splits == {"train": 8, "val": 0}
    assert len(ShardDataset(tmp_path / "out", "val")) == 0
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert {name: s.num_examples for name, s in builder.info.splits.items()} == {
        "train": 8,
        "val": 0,
    }


# --- options and folders --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 4}, "--image-size 4: must be between 8 and 4096"),
        ({"jpeg_quality": 101}, "jpeg_quality=101: must be between"),
        ({"shard_size": 0}, "shard_size=0: must be between"),
        ({"context_ratio": 0.5}, "--context-ratio 0.5: must be between"),
        ({"limit": 0}, "--limit 0: must be at least 1"),
        ({"splits": ["train", "test"]}, "no split 'test': there is train, val"),
        (
            {"splits": ["train", "train"]},
            "--splits 'train,train': name each split once, as in train",
        ),
        ({"splits": ["train", ""]}, "--splits 'train,': name each split once, as in train,val"),
        ({"name": "../x"}, "'../x' cannot name a data set"),
    ],
)
def test_bad_options_are_refused_at_once(tmp_path, options, message):
    with pytest.raises(PrepareError, match=message):
        make(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_classes_and_ids_are_checked_at_once(tmp_path):
    for classes, message in (
        (("a", "a"), "class 'a' exists twice"),
        (("a\n",), "class 'a.n': must be 1 to 256 printable"),
    ):
        source = Made()
        source.classes = classes
        with pytest.raises(PrepareError, match=message):
            make(tmp_path / "out", source)
    source = Made()
    source.refs = lambda: [Ref("x", "train", (1,)), Ref("x", "val", (2,))]
    with pytest.raises(PrepareError, match="lists 'x' twice"):
        make(tmp_path / "out", source)


def test_other_folders_are_not_touched(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    for out in ("full", "file"):
        with pytest.raises(PrepareError, match="holds something else: choose a new or empty"):
            make(tmp_path / out)
    with pytest.raises(PrepareError, match="prepare on a local disk, then copy"):
        make("gs://bucket/out")


def test_other_options_in_a_begun_folder_are_refused(tmp_path):
    make(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(PrepareError, match=r"jpeg_quality was 95 and is now 50\. Use the same"):
        make(tmp_path / "out", jpeg_quality=50)
    with pytest.raises(PrepareError, match=r"source\.train was 10 and is now 11\. Use"):
        make(tmp_path / "out", Made(train=11))
    source = Made()
    source.classes = ("barn", "zoo", "x")
    with pytest.raises(PrepareError, match="other examples are listed"):
        make(tmp_path / "out", source)
    assert contents(tmp_path / "out") == before


def test_one_process_at_a_time(tmp_path):
    import fcntl

    make(tmp_path / "out")
    with (tmp_path / "out" / ".prepare" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PrepareError, match="another process is preparing"):
            make(tmp_path / "out")


# --- interruptions --------------------------------------------------------------------------------


def test_a_second_run_does_nothing(tmp_path, monkeypatch):
    make(tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(Made, "read", None)  # would fail if called
    report = make(tmp_path / "out")
    assert report.resumed == 13
    assert report.splits == {"train": 10, "val": 3}
    assert contents(tmp_path / "out") == before


def test_unfinished_shards_are_done_again(tmp_path):
    make(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    out = tmp_path / "out"
    make(out)
    marks = sorted(p for p in (out / ".prepare").glob("*.json") if p.name != "plan.json")
    shards = sorted(out.glob("*.array_record-*"))
    assert len(marks) == len(shards) == 4
    marks[0].unlink()  # killed after the shard, before its mark
    marks[1].write_text(marks[1].read_text()[:50])  # a torn mark
    shards[2].write_bytes(shards[2].read_bytes()[:-9])  # a torn shard
    (out / f".{shards[3].name}.123.tmp").write_bytes(b"half")  # what a kill leaves
    (out / "schema.json").unlink()
    with pytest.raises(ValueError, match="no prepared data"):
        ShardDataset(out, "train")
    report = make(out)
    assert report.resumed == 3  # val, the only one that was sound
    assert contents(out) == expected


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """A small EuroSAT: 60 chips in folders."""
    folder = tmp_path_factory.mktemp("chips")
    rows = ["filename,label,split,longitude,latitude,country_code"]
    for i in range(60):
        label = ("Forest", "River", "SeaLake")[i % 3]
        path = folder / "EuroSAT_RGB" / label / f"{label}_{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i, 64, 64) if i % 7 else jpeg(i, 80, 90))
        split = "val" if i % 5 == 0 else "train"
        rows.append(f"{label}/{path.name},{label},{split},{i},{i / 2},FRA")
    (folder / "meta.csv").write_text("\n".join(rows))
    return folder


def test_workers_make_the_same_bytes(tmp_path, chips, capfd):
    for workers in (0, 2):
        report = prepare(
            EuroSAT([chips]), tmp_path / str(workers), image_size=64, shard_size=7, workers=workers
        )
        assert report.splits == {"train": 48, "val": 12}
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    assert "60/60" in capfd.readouterr().err  # the bar


SLOW = textwrap.dedent(
    """
    import sys, time
    from satmip_jax.prepare import prepare
    from satmip_jax.sources.eurosat import EuroSAT

    class Slow(EuroSAT):
        def read(self, ref, problems):
            time.sleep(0.04)
            return super().read(ref, problems)

    if __name__ == "__main__":
        prepare(Slow([sys.argv[1]]), sys.argv[2], image_size=64, shard_size=4, workers=2)
    """
)


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(c) for c in path.read_text().split()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to see processes")
def test_kill_9_at_any_moment(tmp_path, chips):
    prepare(EuroSAT([chips]), tmp_path / "whole", image_size=64, shard_size=4, workers=0)
    expected = contents(tmp_path / "whole")
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)}
    rng = random.Random(0)

    def marks() -> int:
        return len(list((out / ".prepare").glob("*-of-*.json")))

    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, script, chips, out], env=environment, stderr=subprocess.DEVNULL
        )
        before, deadline = marks(), time.monotonic() + 60
        while marks() < before + 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        workers = children(process.pid)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not [w for w in workers if Path(f"/proc/{w}").exists()], "workers were left behind"
        assert not (out / "schema.json").exists()
        for path in out.glob("eurosat-*"):  # what has its name is whole
            assert path.read_bytes() == expected[path.name]

    report = prepare(EuroSAT([chips]), out, image_size=64, shard_size=4, workers=0)
    assert report.resumed >= 6 * 4 - 4
    assert contents(out) == expected


def work(task: str, tick) -> None:
    tick()
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "fail":
        raise ValueError("this one failed")


class Bar:
    n = 0

    def update(self, n: int = 1) -> None:
        self.n += n


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [("die", pool.WorkerDiedError, "a worker process died"), ("fail", ValueError, "this one")],
)
def test_workers_that_die_or_fail(task, error, message):
    with pytest.raises(error, match=message):
        pool.run(work, ["ok", task, "ok"], workers=1, bar=Bar())


def test_a_dead_worker_is_explained(tmp_path, monkeypatch):
    def run(*_, **__):
        raise pool.WorkerDiedError("a worker process died")

    monkeypatch.setattr(pool, "run", run)
    with pytest.raises(PrepareError, match="died: try fewer --workers; finished shards are kept"):
        make(tmp_path / "out")


# --- the real thing -------------------------------------------------------------------------------


def test_real_chips_keep_their_bytes(tmp_path, real_data):
    source = EuroSAT([real_data / "eurosat"], split_column="split_spatial")
    report = prepare(source, tmp_path / "out", image_size=64, limit=60, workers=0, progress=False)
    assert report.splits == {"train": 60, "val": 60}
    assert not report.bad
    data = ShardDataset(tmp_path / "out", "train")
    refs = {ref.id: ref for ref in source.refs()}
    labels = set()
    for i in range(60):
        record = data[i]
        example = source.read(refs[record["id"]], Problems())
        assert record["image"] == example.image
        assert data.schema.classes[record["label"]] == example.label
        assert record["metadata"].values["gsd"] == (10.0, 10.0)
        labels.add(record["label"])
    assert labels == set(range(10))  # the limit spreads over the classes
    stats = StatsAccumulator()
    for i in range(60):
        stats.add(data[i]["metadata"])
    assert stats.finish()["country_code"] == data.schema.fields["country_code"]
