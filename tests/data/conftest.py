"""Fixtures of tests of data."""

import pytest

from satmip_jax.data.shard_format import shard_file
from satmip_jax.data.shard_writer import finish, write_shard
from tests.data.tiny_records import records, schema


@pytest.fixture
def prepared(tmp_path):
    """train: shards of 4, 0 and 3 records; val: one of 2."""
    for i, rows in enumerate([records(4), [], records(3, 4)]):
        write_shard(tmp_path / shard_file("tiny", "train", i, 3), rows)
    write_shard(tmp_path / shard_file("tiny", "val", 0, 1), records(2, 7))
    finish(tmp_path, schema(train=7, val=2), {"train": [4, 0, 3], "val": [2]})
    return tmp_path
