"""Records that cannot be read: reported, counted, and replaced in every loader alike."""

import json
import shutil

import jax
import numpy as np
import pytest

from satmip_jax.data.bad_records import BadRecords, BadRecordsError
from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import Record, shard_file
from satmip_jax.data.shard_writer import write_shard
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation.features import extract
from satmip_jax.evaluation.model import Model
from satmip_jax.training.step import build_program

BAD = {3: "damaged", 30: "damaged JPEG|truncated|not a JPEG|header", 41: "damaged"}


def spoil(file, data):
    """Overwrite part of some bytes in a file, like a bad sector."""
    content = file.read_bytes()
    parts = (data[i : i + 24] for i in range(len(data) - 24))  # some are stored as they are
    first = next(content.index(part) for part in parts if content.count(part) == 1)
    file.write_bytes(content[:first] + b"\0" * 24 + content[first + 24 :])


@pytest.fixture(scope="module")
def spoilt(tiny_shards_dir, tiny_shards, tmp_path_factory):
    """The train split with three bad records: two of damaged shards and one that is no JPEG."""
    folder = tmp_path_factory.mktemp("spoilt") / "shards"
    shutil.copytree(tiny_shards_dir, folder)
    schema = tiny_shards.schema
    second = folder / shard_file(schema.name, "train", 1, 3)
    records = [tiny_shards[number] for number in range(24, 48)]
    records[30 - 24]["image"] = records[30 - 24]["image"][:200] + b"\0" * 200
    kept = [Record(r["id"], r["image"], r["metadata"], r["label"]) for r in records]
    write_shard(second, kept)
    spoil(folder / shard_file(schema.name, "train", 0, 3), tiny_shards[3]["image"])
    spoil(second, tiny_shards[41]["image"])
    return ShardDataset(folder, "train")


@pytest.mark.slow
def test_every_loader_replaces_bad_records_by_the_same_ones(spoilt, tiny_shards, tmp_path):
    mesh = make_mesh()
    options = {"batch_size": 32, "seed": 3}

    def take(loader, count, **more):
        bad = BadRecords("train", path=tmp_path / "bad_records.json")
        (tmp_path / "bad_records.json").unlink(missing_ok=True)
        bad.reasons.clear()
        with loader(spoilt, mesh, bad_records=bad, **options, **more) as batches:
            return [jax.device_get(next(batches)) for _ in range(count)], bad

    threads, bad = take(TrainBatches, 4)
    assert sorted(bad.reasons) == sorted(BAD)
    listed = {row["record"]: row for row in json.loads(bad.path.read_text())}
    for number, reason in BAD.items():
        assert any(part in listed[number]["reason"] for part in reason.split("|"))
    assert tiny_shards[30]["id"] in listed[30]["reason"]
    assert "record 3" in listed[3]["reason"]

    order = BatchOrder(64, **options)
    for i, batch in enumerate(threads):
        replaced = {n for n, m in zip(order[i], batch["index"], strict=True) if n != m}
        assert replaced == set(BAD) & set(order[i])
        assert len(set(batch["index"].tolist())) == 32
        for row, number in enumerate(batch["index"]):
            assert batch["label"][row] == tiny_shards[number]["label"]
    for other, more, first in (
        (InMemoryBatches, {}, 0),
        (TrainBatches, {"workers": 2}, 0),
        (TrainBatches, {"start": 2}, 2),
    ):
        again, found = take(other, 4 - first, **more)
        jax.tree.map(np.testing.assert_array_equal, threads[first:], again)
        assert found.reasons == bad.reasons


def test_more_bad_records_than_the_budget_end_with_the_list(spoilt, tmp_path):
    path = tmp_path / "bad_records.json"
    mesh = make_mesh()
    bad = BadRecords("train", budget=2, path=path)
    with (
        pytest.raises(BadRecordsError, match=r"3 records of train .*bad_records=2:\n  .*\n  .*\n"),
        TrainBatches(spoilt, mesh, batch_size=32, seed=0, bad_records=bad) as batches,
    ):
        next(batches), next(batches)
    assert set(BadRecords("train", path=path).reasons) == set(BAD)  # a resumed run counts on
    assert not BadRecords("val", path=path).reasons


def test_an_evaluation_leaves_bad_records_out(spoilt, tiny_shards, tiny_config, caplog):
    config, schema = tiny_config("simclr"), tiny_shards.schema
    mesh = make_mesh()
    program = build_program(config, schema, len(tiny_shards), mesh)
    params = program.init().params
    expected, features = (
        extract(Model(config, schema, program.towers, params, mesh), data)
        for data in (tiny_shards, spoilt)
    )
    good = [number for number in range(64) if number not in BAD]
    np.testing.assert_array_equal(features.labels, expected.labels[good])
    np.testing.assert_allclose(
        features.by_kind["image"], expected.by_kind["image"][good], rtol=1e-5
    )
    assert "train record 41 cannot be read and is left out of the evaluation" in caplog.text
