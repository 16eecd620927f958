"""Memory of the losses' scores by hand, and settings with which a step fits."""

import pytest

from satmip_jax.distributed import sharding
from satmip_jax.errors import SatmipError
from satmip_jax.planning import memory
from satmip_jax.planning.dry_run import diagnose
from satmip_jax.training.step import build_program
from tests.conftest import use_one_device

BATCH, DEVICES = 64, 8
# a device's rows of the matrix, three float32 arrays
NT_XENT = 3 * 4 * (2 * BATCH // DEVICES) * (2 * BATCH)
INFO_NCE = 2 * 3 * 4 * (BATCH // DEVICES) * BATCH  # from images to metadata, and back


@pytest.mark.parametrize(
    ("method", "options", "size"),
    [
        ("simclr", (), NT_XENT),
        ("satmip", (), INFO_NCE),
        ("satmip", ("--config.method.loss=sigmoid",), INFO_NCE),
        ("satmips", (), NT_XENT + INFO_NCE),
        ("satmips", ("--config.method.coupled=False",), NT_XENT + INFO_NCE),
        ("supervised", (), 0),
        # a tile is no larger than a device's rows
        ("simclr", ("--config.parallel.exchange=ring",), 3 * 4 * (2 * BATCH // DEVICES) ** 2),
    ],
)
def test_memory_of_scores(method, options, size, tiny_config, tiny_shards):
    config = tiny_config(method, f"--config.optimizer.batch_size={BATCH}", *options)
    program = build_program(config, tiny_shards.schema, 64, sharding.make_mesh())
    assert memory.score_bytes(program) == size


def test_a_ring_holds_one_tile(tiny_config, tiny_shards):
    config = tiny_config(
        "satmip",
        f"--config.optimizer.batch_size={8 * 4096}",
        "--config.parallel.exchange=ring",
    )
    program = build_program(config, tiny_shards.schema, 8 * 4096, sharding.make_mesh())
    assert memory.score_bytes(program) == 3 * 4 * 1024**2


@pytest.mark.slow
def test_too_little_memory_is_reported_and_fitted(tiny_config, tiny_shards, monkeypatch):
    use_one_device(monkeypatch)  # compiling for one device is quicker
    config = tiny_config("simclr")
    diagnosis = diagnose(config, devices=1, device_memory=1)
    (problem,) = diagnosis.problems
    assert "micro_batch" in problem
    needed = diagnosis.numbers["compiled_bytes"]
    fitted, bytes_needed = memory.fit(config, tiny_shards.schema, 64, int(0.8 * needed))
    assert 0 < fitted.parallel.micro_batch < 16
    assert bytes_needed <= memory.HEADROOM * 0.8 * needed
    config.parallel.micro_batch = 1
    with pytest.raises(MemoryError, match="use more devices") as caught:
        memory.fit(config, tiny_shards.schema, 64, needed // 100)
    assert isinstance(caught.value, SatmipError)  # a message for users, without a traceback
