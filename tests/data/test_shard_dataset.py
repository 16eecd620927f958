"""Prepared splits: read by us and by TFDS; damaged files and records are reported by name."""

import concurrent.futures
import json
import os
import pickle
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from satmip_jax.data import shard_index
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError, shard_file
from satmip_jax.data.shard_writer import finish, write_shard
from tests.data.tiny_records import FULL, close, first_shard, records, schema


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


def test_a_flipped_bit_is_detected_wherever_it_is(prepared):
    """The checksums of ArrayRecord detect it, and the error names file and record."""
    path = first_shard(prepared)
    content = path.read_bytes()
    good = [ShardDataset(prepared, "train")[i] for i in range(7)]
    named: dict[object, list[str]] = {}
    for at in [1500, *range(3, 5000, 61)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
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
    data = ShardDataset(prepared, "train")
    monkeypatch.setattr(shard_index, "MAX_RECORD_BYTES", 100)
    with pytest.raises(ShardError, match=r"record 0: .* bytes, more than 100"):
        data[0]


@pytest.mark.parametrize("content", [b"", b"hello", bytes(200_000), os.urandom(100_000)])
def test_files_that_are_not_shards(prepared, content):
    first_shard(prepared).write_bytes(content)
    with pytest.raises(ShardError, match="array_record-00000-of-00003"):
        ShardDataset(prepared, "train")


def test_a_truncated_file(prepared):
    data = first_shard(prepared).read_bytes()
    first_shard(prepared).write_bytes(data[: len(data) // 2])
    with pytest.raises(ShardError, match="array_record-00000-of-00003: damaged or truncated"):
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


def test_no_prepared_data_and_unknown_split(prepared, tmp_path):
    with pytest.raises(ShardError, match=r"no prepared data in .*satmip prepare"):
        ShardDataset(tmp_path / "nowhere", "train")
    with pytest.raises(ShardError, match="no split 'test': it has train, val"):
        ShardDataset(prepared, "test")


def test_an_invalid_schema(prepared):
    path = prepared / "schema.json"
    path.write_text("[]")
    with pytest.raises(ShardError, match=r"schema\.json"):
        ShardDataset(prepared, "train")
    data = schema(train=7, val=2).to_json() | {"name": "../../etc/passwd"}
    path.write_text(json.dumps(data))
    with pytest.raises(ShardError, match="passwd"):
        ShardDataset(prepared, "train")
