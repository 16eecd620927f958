"""Batches on the host."""

import pickle

import numpy as np
import pytest

from satmip_jax.data import images
from satmip_jax.data.batch_reader import HostMemoryError, ReadBatch, ReadTrainBatch
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.data.shard_format import ShardError
from satmip_jax.metadata import tabular


def test_a_batch_holds_what_the_records_hold(tiny_shards):
    reader = ReadBatch(tiny_shards, tiny_shards.schema, captions=True)
    batch = reader([5, 0, 63])
    for row, number in enumerate([5, 0, 63]):
        record = tiny_shards[number]
        np.testing.assert_array_equal(batch["image"][row], images.decode(record["image"]))
        assert batch["label"][row] == record["label"]
        one = tabular.encode([record["metadata"]], tiny_shards.schema)
        for name, array in one.items():
            np.testing.assert_array_equal(batch["metadata"][name][row], array[0])
    assert batch["index"].tolist() == [5, 0, 63]
    assert batch["metadata"]["caption"].any(axis=(1, 2)).all()


@pytest.fixture
def partly_broken(tiny_shards):
    """Make a split, some of whose images are no JPEG."""

    class PartlyBroken:
        schema, split, data_dir = tiny_shards.schema, "train", tiny_shards.data_dir

        def __init__(self, broken):
            self.broken = broken

        def __len__(self):
            return len(tiny_shards)

        def __getitem__(self, number):
            record = tiny_shards[number]
            return record | ({"image": b"\xff\xd8 no"} if number in self.broken else {})

    return PartlyBroken


def test_a_record_that_cannot_be_read_is_not_valid(tiny_shards, partly_broken):
    reader = ReadBatch(partly_broken({7}), tiny_shards.schema, captions=True)
    batch, whole = reader([5, 7, 0]), ReadBatch(tiny_shards, tiny_shards.schema, True)([5, 7, 0])
    assert batch["valid"].tolist() == [True, False, True]
    assert batch["index"].tolist() == [5, 7, 0]
    assert batch["label"][1] == -1
    assert not batch["image"][1].any()
    assert np.isnan(tabular.locations(batch["metadata"])[1]).all()
    assert [number for number, _ in batch["bad"]] == [7]
    for name in ("image", "label"):
        np.testing.assert_array_equal(batch[name][::2], whole[name][::2])


def test_replacements_are_in_no_batch_twice_and_read_like_any_record(tiny_shards, partly_broken):
    order = BatchOrder(64, 24, seed=0)
    broken = {*order[3][:4], *order[4][5:9]}
    read = ReadTrainBatch(ReadBatch(partly_broken(broken), tiny_shards.schema), order)
    for step in range(6):
        batch = read(step)
        numbers = batch["index"].tolist()
        assert len(set(numbers)) == 24
        assert not broken & set(numbers)
        for row, (number, before) in enumerate(zip(numbers, order[step], strict=True)):
            assert number == before or before in broken
            assert batch["label"][row] == tiny_shards[number]["label"]
        assert "valid" not in batch


def test_a_batch_without_a_replacement_is_refused(tiny_shards, partly_broken):
    """All images are broken; or a batch of the whole split, which leaves none."""
    everything = ReadBatch(partly_broken(range(64)), tiny_shards.schema)
    with pytest.raises(ShardError, match=r"train record 14 .*\n.*" + tiny_shards[14]["id"]):
        ReadTrainBatch(everything, BatchOrder(50, 8, seed=0))(0)
    one = ReadBatch(partly_broken({7}), tiny_shards.schema)
    with pytest.raises(ShardError, match=r"record 7 .*batch_size of at most half of the 64"):
        ReadTrainBatch(one, BatchOrder(64, 64, seed=0))(0)


def test_too_little_memory_names_the_record_and_is_no_bad_record(tiny_shards, monkeypatch):
    """Its replacement would hide that the machine, not the record, is the reason."""
    read = ReadTrainBatch(ReadBatch(tiny_shards, tiny_shards.schema), BatchOrder(64, 8, seed=0))
    number = int(BatchOrder(64, 8, seed=0)[0][0])
    where = rf"{tiny_shards.where(number)}( \(.*\))?: use fewer worker processes"
    size = f"{len(tiny_shards[number]['image']):,} bytes"

    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(images, "decode_square", fail)
        with pytest.raises(HostMemoryError, match=f"32x32 pixels from the {size} of {where}"):
            read(0)
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_shards), "__getitem__", fail)
        with pytest.raises(HostMemoryError, match=f"too little memory to read {where}") as caught:
            read(0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
