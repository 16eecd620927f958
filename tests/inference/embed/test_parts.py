"""Parts of a file of embeddings: joined, they are the rows of all inputs, each once."""

import errno

import numpy as np
import pyarrow.parquet as pq
import pytest

from satmip_jax.inference.embed import parts as module
from satmip_jax.inference.embed.parts import PartFacts, Parts
from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.inference.embed.writer import to_table
from satmip_jax.metadata.fields import FIELDS
from tests.inference.embed.test_table import INFO, make_rows

IMAGES = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
ROWS = make_rows(40)


def write(parts, first, end):
    facts = PartFacts(geometry_types={"Point"})
    facts.fields.update({f.name: end - first for f in FIELDS})
    parts.write(first, end, to_table(ROWS[first:end], IMAGES[first:end]), facts)


def joined(parts):
    assert parts.join(INFO) == 40
    table = EmbeddingTable.open(parts.out)
    assert [row["id"] for row in table.rows(range(40))] == [row.id for row in ROWS]
    np.testing.assert_array_equal(table.images(), IMAGES)


@pytest.mark.parametrize("ends", [(40,), (7, 14, 40), (3, 25, 26, 39, 40)])
def test_no_row_is_lost_between_tables(tmp_path, monkeypatch, ends):
    monkeypatch.setattr(module, "ROWS", 7)
    parts = Parts(tmp_path / "e.parquet", {})
    with parts.claim():
        for first, end in zip((0, *ends), ends, strict=False):
            write(parts, first, end)
        assert parts.finished() == 40
        joined(parts)
    groups = pq.read_metadata(parts.out)
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sizes == [7] * 5 + [5]


@pytest.mark.parametrize("damage", [None, b"", b"PAR1 and more"])
def test_a_run_after_damage_leaves_each_row_once(tmp_path, damage):
    parts = Parts(tmp_path / "e.parquet", {})
    with parts.claim():
        for first, end in ((0, 10), (10, 20), (20, 40)):
            write(parts, first, end)
    lost = parts.folder / "000000000010-000000000020.parquet"
    if damage is None:
        lost.unlink()
    else:
        lost.write_bytes(damage)
    with parts.claim():
        assert parts.finished() == 10
        for first, end in ((10, 33), (33, 40)):  # other ends than before
            write(parts, first, end)
        assert parts.finished() == 40
        joined(parts)


def test_a_disk_that_cannot_be_read_loses_no_part(tmp_path, monkeypatch):
    parts = Parts(tmp_path / "e.parquet", {})
    with parts.claim():
        write(parts, 0, 10)

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "read_metadata", fail)
        with pytest.raises(OSError, match="Input/output error"), parts.claim():
            pass
    with parts.claim():
        assert parts.finished() == 10
