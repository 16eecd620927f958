"""Writing of shards."""

import pytest

from satmip_jax.data.shard_writer import write_shard
from tests.data.tiny_records import records


def test_a_failed_shard_leaves_nothing(tmp_path):
    def rows():
        yield records(1)[0]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_shard(tmp_path / "x", rows())
    assert list(tmp_path.iterdir()) == []
