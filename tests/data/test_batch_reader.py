"""Batches on the host."""

import numpy as np
import pytest

from satmip_jax.data import images
from satmip_jax.data.batch_reader import ReadBatch
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


def test_a_record_without_a_readable_replacement_is_reported(tiny_shards):
    class Broken:
        schema, split, data_dir = tiny_shards.schema, "train", tiny_shards.data_dir

        def __len__(self):
            return len(tiny_shards)

        def __getitem__(self, number):
            return {**tiny_shards[number], "image": b"\xff\xd8 not a JPEG"}

    with pytest.raises(ShardError, match=r"train record 7 .*\n.*" + tiny_shards[7]["id"]):
        ReadBatch(Broken(), tiny_shards.schema)([7])
