"""Preparation: stored examples, counted problems, rejected options."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from satmip_jax.data.images import ImageError
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.prepare import shard_job
from satmip_jax.prepare.run import PrepareError, prepare
from satmip_jax.prepare.shard_job import PixelSums
from satmip_jax.sources.base import Ref, UnreadableExample
from satmip_jax.sources.eurosat import EuroSAT
from tests.prepare.fake_source import FakeSource, contents, jpeg, make

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
    make(tmp_path / "out", FakeSource(changes={2: {"image": image}}))
    assert ShardDataset(tmp_path / "out", "train")[2]["image"] == image


def test_boxes_are_cut_with_context(tmp_path):
    source = FakeSource(changes={0: {"image": jpeg(0, 100, 80), "box": (10, 20, 20, 30)}})
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
    make(tmp_path / "out", FakeSource(train=20), limit=4, splits=["train"])
    data = ShardDataset(tmp_path / "out", "train")
    assert [r[-3:] for r in data.ids(range(4))] == ["000", "005", "010", "015"]
    assert data.schema.splits == {"train": 4}


def test_name_and_statistics_of_another_folder(tmp_path):
    make(tmp_path / "first")
    source = FakeSource(train=0, val=5)
    with pytest.raises(PrepareError, match=r"no split 'train' to compute statistics from .*is val"):
        make(tmp_path / "second", source)
    report = make(tmp_path / "second", source, statistics_from=tmp_path / "first", name="other")
    first, second = (Schema.load(tmp_path / p / "schema.json") for p in ("first", "second"))
    assert second.fields == first.fields
    assert second.image_mean == first.image_mean
    assert second.splits == {"val": 5}
    assert report.statistics == os.fspath(tmp_path / "first")
    assert (tmp_path / "second" / "other-val.array_record-00000-of-00002").exists()
    with pytest.raises(PrepareError, match="no prepared data: "):
        make(tmp_path / "third", source, statistics_from=tmp_path / "nowhere")


def test_without_labels(tmp_path):
    source = FakeSource(changes={i: {"label": None} for i in range(10)})
    source.classes = ()
    make(tmp_path / "out", source)
    assert ShardDataset(tmp_path / "out", "train")[0]["label"] == -1


# --- what is counted ------------------------------------------------------------------------------


BAD = {
    0: (UnreadableExample("its JSON record is not JSON"), "its JSON record is not JSON"),
    1: ({"image": b"GIF89a"}, "not a JPEG, PNG, TIFF, WebP or JPEG 2000 file"),
    2: ({"image": jpeg(0)[:-40]}, "truncated JPEG"),
    3: ({"box": (0, 0, 1, 50)}, "box under 2 pixels"),
    5: ({"box": (500, 0, 50, 50)}, "box outside the image"),
    6: ({"box": (0, float("nan"), 50, 50)}, "box is not finite"),
    7: ({"label": "volcano"}, "unknown class 'volcano'"),
    8: ({"image": jpeg(0, 90, 80)}, "90x80 pixels, more than the limit of 5,000"),
    10: (ImageError("cannot be encoded as PNG"), "cannot be encoded as PNG"),  # of arrays
}


def test_bad_examples_are_counted_and_listed(tmp_path, capsys):
    source = FakeSource(train=11, val=0, changes={i: change for i, (change, _) in BAD.items()})
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


def test_reading_ahead_changes_nothing(tmp_path, monkeypatch):
    """Groups of any size give the same shards and marks; a group ends after so many bytes."""
    found, steps = [], []
    read, cut = FakeSource.read, shard_job.Job._cut
    monkeypatch.setattr(FakeSource, "read", lambda *a: (steps.append("r"), read(*a))[1])
    monkeypatch.setattr(shard_job.Job, "_cut", lambda *a: (steps.append("c"), cut(*a))[1])
    for ahead, size, order in (
        (1, 1 << 20, "rc" * 12),
        (3, 1 << 20, "rrrccc" * 4),
        (16, 1 << 20, "r" * 12 + "c" * 12),
        (16, 0, "rc" * 12),
    ):
        monkeypatch.setattr(shard_job, "AHEAD", ahead)
        monkeypatch.setattr(shard_job, "AHEAD_BYTES", size)
        out = tmp_path / f"{ahead}-{size}"
        steps.clear()
        changes = {3: {"image": b"GIF89a"}, 5: {"box": (40.0, 2.0, 5.0, 5.0)}}
        make(out, FakeSource(12, 0, changes=changes), shard_size=12)
        assert "".join(steps) == order
        marks = {p.name: p.read_bytes() for p in (out / ".prepare").glob("*-of-*.json")}
        found.append((contents(out), marks))
    assert len(found[0][1]) == 1
    assert all(result == found[0] for result in found)


def test_problems_of_stored_examples_are_counted(tmp_path):
    report = make(tmp_path / "out", FakeSource(changes={1: UnreadableExample("gone")}))
    # train 0, 2, 4, 6, 8 and val 0, 2 have no country; example 1 is not stored
    assert report.problems.count("country_code", "missing") == 7
    assert report.problems.count("timestamp", "missing") == 13 - 2
    assert report.problems.count("gsd") == 0


def test_a_shard_of_bad_examples_is_empty_and_tfds_can_read_it(tmp_path):
    import tensorflow_datasets as tfds

    make(tmp_path / "out", FakeSource(changes={i: UnreadableExample("gone") for i in range(4, 8)}))
    data = ShardDataset(tmp_path / "out", "train")
    ids = [f"train/{i:03d}" for i in (0, 1, 2, 3, 8, 9)]
    assert data.ids(range(len(data))) == ids
    builder = tfds.builder_from_directory(tmp_path / "out")
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert [source[i]["id"].decode() for i in range(len(source))] == ids


def test_ids_from_file_names_are_printed_safely(tmp_path, capsys):
    class Named(FakeSource):
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
        make(tmp_path / "a", FakeSource(changes=gone))
    assert not (tmp_path / "a" / "schema.json").exists()
    assert len(json.loads((tmp_path / "a" / "prepare_report.json").read_text())["bad"]) == 13
    with pytest.raises(PrepareError, match="no training example"):
        make(tmp_path / "b", FakeSource(val=12, changes=gone))
    with pytest.raises(PrepareError, match="the source lists no examples"):
        make(tmp_path / "c", FakeSource(train=0, val=0))


def test_a_split_of_bad_examples_is_empty(tmp_path):
    import tensorflow_datasets as tfds

    source = FakeSource(train=10, val=2, changes={i: UnreadableExample("gone") for i in range(2)})
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
        ({"splits": ["train", "test"]}, "no split 'test': there are train, val"),
        (
            {"splits": ["train", "train"]},
            "--splits 'train,train': name each split once, as in train",
        ),
        ({"splits": ["train", ""]}, "--splits 'train,': name each split once, as in train,val"),
        ({"name": "../x"}, "'../x' cannot name a data set"),
    ],
)
def test_wrong_options_are_rejected_at_once(tmp_path, options, message):
    with pytest.raises(PrepareError, match=message):
        make(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_classes_and_ids_are_checked_at_once(tmp_path):
    for classes, message in (
        (("a", "a"), "class 'a' exists twice"),
        (("a\n",), "class 'a.n': must be 1 to 256 printable"),
    ):
        source = FakeSource()
        source.classes = classes
        with pytest.raises(PrepareError, match=message):
            make(tmp_path / "out", source)
    source = FakeSource()
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


def test_other_options_in_a_started_folder_are_rejected(tmp_path):
    make(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(PrepareError, match=r"jpeg_quality was 95 and is now 50\. Use the same"):
        make(tmp_path / "out", jpeg_quality=50)
    with pytest.raises(PrepareError, match=r"source\.train was 10 and is now 11\. Use"):
        make(tmp_path / "out", FakeSource(train=11))
    source = FakeSource()
    source.classes = ("barn", "zoo", "x")
    with pytest.raises(PrepareError, match="other examples or classes are listed"):
        make(tmp_path / "out", source)
    assert contents(tmp_path / "out") == before


def test_one_process_at_a_time(tmp_path):
    import fcntl

    make(tmp_path / "out")
    with (tmp_path / "out" / ".prepare" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PrepareError, match="another process is preparing"):
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
