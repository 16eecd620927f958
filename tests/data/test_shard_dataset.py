"""Shards: what is written is read, by us and by TFDS; what is damaged is named."""

import concurrent.futures
import io
import json
import os
import pickle
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

import satmip_jax.data.shard_dataset as shards
from satmip_jax.data import remote_cache, shard_format
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import Record, ShardError, shard_file, tfds_features
from satmip_jax.data.shard_writer import finish, write_shard
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.runtime import files

FULL = {
    "gsd": [11.4546, 9.1344],
    "multispectral_gsd": 41.1896,
    "pixel_size": [1.03e-04, 8.23e-05],
    "timestamp": "2015-09-21T15:30:08Z",
    "location": [-73.310776, -3.785814],
    "utm_zone": "18M",
    "country_code": "PER",
    "cloud_cover": 14,
    "scan_direction": "Reverse",
    "wavelengths": [661, 545, 477],
    "target_azimuth_angle": 39.12,
    "sun_azimuth_angle": 77.28,
    "sun_elevation_angle": 70.44,
    "off_nadir_angle": 27.70,
    "sensor_platform": "GEOEYE01",
}


def jpeg(seed: int, size: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60 + seed % 30)
    return file.getvalue()


def records(n: int, start: int = 0) -> list[Record]:
    """Records alternately full, half empty and empty."""
    raws = [FULL, {k: FULL[k] for k in list(FULL)[::2]}, {}]
    return [
        Record(f"folder/é{i}.jpg", jpeg(i), Metadata.parse(raws[i % 3]), i % 3 - 1)
        for i in range(start, start + n)
    ]


def schema(classes=("barn", "zoo"), **splits: int) -> Schema:
    return Schema(
        name="tiny",
        image_size=16,
        classes=classes,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.2, 0.2, 0.2),
        fields=StatsAccumulator().finish(),
        splits=splits,
        provenance={"license": "none", "homepage": "https://example.org"},
    )


@pytest.fixture
def prepared(tmp_path):
    """train: shards of 4, 0 and 3 records; val: one of 2."""
    for i, rows in enumerate([records(4), [], records(3, 4)]):
        write_shard(tmp_path / shard_file("tiny", "train", i, 3), rows)
    write_shard(tmp_path / shard_file("tiny", "val", 0, 1), records(2, 7))
    finish(tmp_path, schema(train=7, val=2), {"train": [4, 0, 3], "val": [2]})
    return tmp_path


def close(a: Metadata, b: Metadata) -> bool:
    """The same but for the rounding to float32."""
    if a.values.keys() != b.values.keys():
        return False
    return all(
        np.allclose(x, b.values[k], rtol=1e-7, atol=0) if isinstance(x, tuple) else x == b.values[k]
        for k, x in a.values.items()
    )


# --- round trips ----------------------------------------------------------------------------------


def test_a_record_is_written_as_tfds_writes_it():
    features = tfds_features(16, ["barn", "zoo"])
    for record in records(3):
        known = record.metadata.to_json()
        row = {"image": io.BytesIO(record.image), "label": record.label, "id": record.id}
        for field in FIELDS:
            n = field.kind.components
            shape = () if n == 1 else (n,)
            missing = "" if field.kind.stored_as_text else np.full(shape, np.nan)
            value = known.get(field.name, missing)
            row[field.name] = value if isinstance(value, str) else np.asarray(value, np.float32)
        theirs = tf_example_pb2.Example.FromString(features.serialize_example(row))
        assert shard_format.encode(record) == theirs.SerializeToString(deterministic=True)


def test_round_trip(prepared):
    data = ShardDataset(prepared, "train")
    assert len(data) == 7
    for i, (found, written) in enumerate(zip([data[i] for i in range(7)], records(7), strict=True)):
        assert found["image"] == written.image
        assert found["id"] == written.id
        assert found["label"] == written.label
        assert found["index"] == i
        assert close(found["metadata"], written.metadata)
    assert data[0]["metadata"].values["timestamp"] == datetime(2015, 9, 21, 15, 30, 8, tzinfo=UTC)
    assert data[2]["metadata"].values == {}
    assert data.ids([6, 0]) == ["folder/é6.jpg", "folder/é0.jpg"]
    assert data[np.int64(3)]["index"] == 3
    assert len(ShardDataset(prepared, "val")) == 2
    for index in (7, -1):
        with pytest.raises(IndexError, match="has 7 records"):
            data[index]


def test_tfds_reads_it_without_tensorflow(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared)
    assert builder.info.splits["train"].num_examples == 7
    assert builder.info.features["label"].names == ["barn", "zoo"]
    assert builder.info.homepage == "https://example.org"
    source = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    assert len(source) == 7
    for i, written in enumerate(records(7)):
        assert source[i]["image"] == written.image
        assert source[i]["id"].decode() == written.id
        assert source[i]["label"] == written.label
    np.testing.assert_allclose(source[0]["gsd"], FULL["gsd"], rtol=1e-6)
    assert source[0]["timestamp"] == b"2015-09-21T15:30:08Z"
    assert np.isnan(source[2]["pixel_size"]).all()
    assert np.isnan(source[2]["cloud_cover"])
    assert source[2]["country_code"] == b""
    image = builder.as_data_source(split="val")[0]["image"]
    assert image.shape == (16, 16, 3)


def test_tfds_data_source_finds_it_by_name(prepared, tmp_path_factory):
    import tensorflow_datasets as tfds

    home = tmp_path_factory.mktemp("tfds")
    shutil.copytree(prepared, home / "tiny" / "1.0.0")
    source = tfds.data_source("tiny", split="val", data_dir=home)
    assert source[1]["id"].decode() == records(2, 7)[1].id


def test_without_classes(tmp_path):
    write_shard(tmp_path / shard_file("tiny", "train", 0, 1), records(1))
    finish(tmp_path, schema(classes=(), train=1), {"train": [1]})
    assert ShardDataset(tmp_path, "train")[0]["label"] == -1


def test_processes_and_threads(prepared):
    data = ShardDataset(prepared, "train")
    data[0]
    again = pickle.loads(pickle.dumps(data))
    expected = [data[i]["id"] for i in range(7)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: again[i % 7]["id"], range(210)))
    assert found == expected * 30


# --- values are checked on the way out ------------------------------------------------------------


def example(**features) -> bytes:
    """A tf.train.Example made by hand."""
    proto = tf_example_pb2.Example()
    for name, value in features.items():
        feature = proto.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.extend(value)
    return proto.SerializeToString()


def plain(**changes) -> dict:
    missing = {
        f.name: b"" if f.kind.stored_as_text else [np.nan] * f.kind.components for f in FIELDS
    }
    features = {"image": b"jpeg", "label": 0, "id": b"x", **missing, **changes}
    return {k: v for k, v in features.items() if v is not None}


def read(data: bytes) -> dict:
    feature = tf_example_pb2.Example.FromString(data).features.feature
    return shard_format.decode(feature, 2, "file, record 0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "'image' holds 0 byte strings"),
        ({"image": 3}, "'image' holds 0 byte strings"),
        ({"label": None}, "'label' holds 0 integers"),
        ({"label": 2}, "label 2, of 2 classes"),
        ({"label": -2}, "label -2, of 2 classes"),
        ({"id": b"\xff"}, "'id' is not UTF-8"),
        ({"id": b"\x1b[2J"}, "'id' holds characters that cannot be printed"),
        ({"id": b"x" * 1025}, "'id' takes 1025 bytes"),
        ({"gsd": [1.0]}, "'gsd' holds 1 numbers instead of 2"),
        ({"gsd": []}, "'gsd' holds 0 numbers instead of 2"),
        ({"gsd": b"0.5"}, "'gsd' holds 0 numbers instead of 2"),
        ({"country_code": 3}, "'country_code' holds 0 byte strings"),
        ({"country_code": b"P" * 1000}, "'country_code' takes 1000 bytes"),
    ],
)
def test_bad_features_are_named(changes, message):
    with pytest.raises(ShardError, match=f"file, record 0: {message}"):
        read(example(**plain(**changes)))


def test_fields_without_a_feature_are_missing():
    """A shard may have been written before a field was added."""
    rest = plain(cloud_cover=[14.0], country_code=None, gsd=None, timestamp=None)
    assert read(example(**rest))["metadata"].values == {"cloud_cover": (14.0,)}
    assert read(example(image=b"jpeg", label=0, id=b"x"))["metadata"].values == {}


def test_values_out_of_range_are_missing():
    bad = {
        "gsd": [-1.0, 1.0],
        "location": [0.0, 91.0],
        "cloud_cover": [np.inf],
        "country_code": b"ZZZ",
        "timestamp": b"yesterday",
        "utm_zone": b"99X",
        "wavelengths": [661.0, np.nan, 477.0],
    }
    assert read(example(**plain(**bad)))["metadata"].values == {}
    edge = read(example(**plain(cloud_cover=[100.0], target_azimuth_angle=[360.0])))
    assert edge["metadata"].values == {"cloud_cover": (100.0,), "target_azimuth_angle": (0.0,)}


number = st.floats(width=32) | st.sampled_from([0.0, 100.0, 360.0, -180.0, 180.0, 90.0])
text = st.sampled_from(["PER", "pe", "18M", "Reverse", "2015-09-21", "2015-09-21T10:00:00+02:00"])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_reading_agrees_with_parsing(data):
    """The quick checks of the reader are those of `Metadata.parse`."""
    raw = {}
    for f in FIELDS:
        if f.kind.stored_as_text:
            raw[f.name] = data.draw(
                text | st.text(st.characters(categories=["L", "N"]), max_size=9)
            )
        else:
            raw[f.name] = tuple(data.draw(number) for _ in range(f.kind.components))
    features = {k: v.encode() if isinstance(v, str) else v for k, v in raw.items()}
    assert read(example(**plain(**features)))["metadata"] == Metadata.parse(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_example_reads_or_says_why(data):
    try:
        proto = tf_example_pb2.Example.FromString(data)
    except Exception:  # the reader turns it into a ShardError, see below
        return
    with pytest.raises(ShardError, match="record 0"):
        shard_format.decode(proto.features.feature, 2, "file, record 0")


# --- damage ---------------------------------------------------------------------------------------


def first_shard(folder):
    return folder / shard_file("tiny", "train", 0, 3)


def test_a_flipped_byte_never_passes_for_data(prepared):
    """Wherever it is: the checksums of ArrayRecord notice, and we say where."""
    path = first_shard(prepared)
    whole = path.read_bytes()
    good = [ShardDataset(prepared, "train")[i] for i in range(7)]
    named: dict[object, list[str]] = {}
    for at in [1500, *range(3, 5000, 61)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            dataset = ShardDataset(prepared, "train")
        except ShardError as error:
            named.setdefault("file", []).append(str(error))
            continue
        for i in range(7):
            try:
                assert dataset[i] == good[i]
            except ShardError as error:
                named.setdefault(i, []).append(str(error))
    assert named.keys() == {"file", 0, 1, 2, 3}
    assert all(path.name in message for message in named.pop("file"))
    for i, messages in named.items():
        assert all(f"{path.name}, record {i}: damaged" in message for message in messages)


def test_not_an_example(prepared):
    path = first_shard(prepared)
    writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
    for _ in range(4):
        writer.write(b"\xff\xff no protobuf")
    writer.close()
    with pytest.raises(ShardError, match=r"00000-of-00003, record 2: not a tf.train.Example"):
        ShardDataset(prepared, "train")[2]


def test_records_are_bounded(prepared, monkeypatch):
    monkeypatch.setattr(shards, "MAX_RECORD_BYTES", 100)
    with pytest.raises(ShardError, match=r"record 0: .* bytes, more than 100"):
        ShardDataset(prepared, "train")[0]


@pytest.mark.parametrize("content", [b"", b"hello", bytes(200_000), os.urandom(100_000)])
def test_files_that_are_no_shards(prepared, content):
    first_shard(prepared).write_bytes(content)
    with pytest.raises(ShardError, match="array_record-00000-of-00003"):
        ShardDataset(prepared, "train")


def test_a_file_cut_short(prepared):
    data = first_shard(prepared).read_bytes()
    first_shard(prepared).write_bytes(data[: len(data) // 2])
    with pytest.raises(ShardError, match="array_record-00000-of-00003: damaged or cut short"):
        ShardDataset(prepared, "train")


def test_missing_and_surplus_shards(prepared):
    first_shard(prepared).rename(prepared / "elsewhere")
    with pytest.raises(ShardError, match=r"no tiny-train\.array_record-00000-of-00003"):
        ShardDataset(prepared, "train")
    (prepared / "elsewhere").rename(first_shard(prepared))
    (prepared / shard_file("tiny", "train", 0, 1)).write_bytes(b"")
    with pytest.raises(ShardError, match="does not belong"):
        ShardDataset(prepared, "train")


def test_counts_that_disagree(prepared):
    schema(train=8, val=2).save(prepared / "schema.json")
    with pytest.raises(ShardError, match=r"hold 7 records, schema\.json states 8"):
        ShardDataset(prepared, "train")


def test_nothing_prepared_and_no_such_split(prepared, tmp_path):
    with pytest.raises(ShardError, match=r"no prepared data in .*satmip prepare"):
        ShardDataset(tmp_path / "nowhere", "train")
    with pytest.raises(ShardError, match="no split 'test': it has train, val"):
        ShardDataset(prepared, "test")


def test_a_strange_schema(prepared):
    path = prepared / "schema.json"
    path.write_text("[]")
    with pytest.raises(ShardError, match=r"schema\.json"):
        ShardDataset(prepared, "train")
    data = schema(train=7, val=2).to_json() | {"name": "../../etc/passwd"}
    path.write_text(json.dumps(data))
    with pytest.raises(ShardError, match="passwd"):
        ShardDataset(prepared, "train")


@pytest.mark.parametrize(("name", "split"), [("a-b", "x"), ("../x", "x"), ("x", "all"), ("x", "")])
def test_names_that_would_not_do(name, split):
    with pytest.raises(ValueError, match="cannot name"):
        shard_file(name, split, 0, 1)


def test_a_failed_shard_leaves_nothing(tmp_path):
    def rows():
        yield records(1)[0]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_shard(tmp_path / "x", rows())
    assert list(tmp_path.iterdir()) == []


# --- remote folders -------------------------------------------------------------------------------


def test_remote_folders_are_copied_once(prepared, tmp_path_factory, monkeypatch, capsys):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SATMIP_CACHE", os.fspath(cache))
    monkeypatch.setattr(shards, "is_remote", lambda path: True)  # as gs://bucket/tiny would be
    data = ShardDataset(prepared, "train")
    assert [data[i]["id"] for i in range(7)] == [r.id for r in records(7)]
    assert "copying" in capsys.readouterr().err
    (local,) = cache.iterdir()
    names = sorted(p.name for p in local.iterdir() if not p.name.startswith("."))
    assert names == [shard_file("tiny", "train", i, 3) for i in range(3)]  # not val

    stamp = (local / names[0]).stat().st_mtime_ns
    ShardDataset(prepared, "train")
    assert (local / names[0]).stat().st_mtime_ns == stamp
    assert capsys.readouterr().err == ""

    (local / names[0]).write_bytes(b"half")  # what an unclean copy by hand would leave
    assert ShardDataset(prepared, "train")[0]["id"] == records(1)[0].id

    schema(train=7, val=2, test=0).save(prepared / "schema.json")  # prepared anew
    ShardDataset(prepared, "train")
    assert len(list(cache.iterdir())) == 2


def test_an_interrupted_copy_is_no_copy(tmp_path, monkeypatch):
    from etils import epath

    remote = epath.Path(tmp_path / "remote")
    remote.mkdir()
    (remote / "a").write_bytes(b"x" * 100)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace_durably", stop)
        with pytest.raises(KeyboardInterrupt):
            remote_cache.mirror(remote, ["a"], b"1", tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / ".b.0.tmp").touch()  # of a copy that was killed
    local = remote_cache.mirror(remote, ["a"], b"1", tmp_path / "cache")
    assert (local / "a").read_bytes() == b"x" * 100
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "a"]
