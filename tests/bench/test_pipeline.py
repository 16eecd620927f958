"""Benchmark of loaders."""

import itertools

import numpy as np
import pytest

from satmip_jax.bench import pipeline, torch_loader
from satmip_jax.data import images
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.distributed.sharding import make_mesh


@pytest.fixture
def job(tiny_shards):
    return pipeline.Job(tiny_shards, batch_size=8, batches=2, workers=1, view=16)


def test_loaders_are_measured_and_leak_nothing(job, monkeypatch):
    monkeypatch.setattr(torch_loader, "installed", lambda: False)
    measurements = pipeline.bench(job, rounds=1)
    metrics = {(m.variant, m.metric): m for m in measurements}
    for variant in ("decoding only", "satmip, threads", "satmip, processes"):
        throughput = metrics[variant, "throughput"]
        assert (throughput.bench, throughput.unit, throughput.rounds) == ("pipeline", "images/s", 1)
        assert throughput.facts["size"] == 32
        assert throughput.facts["workers"] == 1
        assert metrics[variant, "leaked processes"].value == 0
    assert metrics["satmip, processes", "worker memory"].unit == "MiB"
    assert ("satmip, threads", "worker memory") not in metrics
    assert not any("DataLoader" in m.variant for m in measurements)


def test_decoding_only_decodes_every_file(job, monkeypatch):
    decoded = []
    monkeypatch.setattr(images, "decode_square", lambda data, side: decoded.append((data, side)))
    files = [b"a", b"b", b"c"]
    pipeline._start_decoding(files, 32)
    assert pipeline.decode_files(2, 4) == 4
    assert decoded == [(b"c", 32), (b"a", 32), (b"b", 32), (b"c", 32)]


def test_torch_records_equal_those_of_the_loader(job):
    """The data set for PyTorch's DataLoader, tested without PyTorch."""
    order = BatchOrder(len(job.dataset), batch_size=8, seed=0)
    records = torch_loader.Records(job.dataset)
    with TrainBatches(job.dataset, make_mesh(), batch_size=8, seed=0) as batches:
        ours = next(batches)
    for row, number in enumerate(order[0]):
        record = records[number]
        np.testing.assert_array_equal(record["image"], ours["image"][row])
        assert record["label"] == ours["label"][row]
        for name, array in record["metadata"].items():
            np.testing.assert_array_equal(array, ours["metadata"][name][row])


@pytest.mark.oracle
@pytest.mark.slow
def test_dataloader_gives_the_same_images(job):
    if not torch_loader.installed():
        pytest.skip("no PyTorch")
    loaders = pipeline.loaders(job)
    with (
        loaders["DataLoader, same decoder"].open() as theirs,
        loaders["satmip, threads"].open() as ours,
    ):
        for one, other in itertools.islice(zip(theirs, ours, strict=False), 3):
            np.testing.assert_array_equal(one["image"], other["image"])
            np.testing.assert_array_equal(one["index"], other["index"])
    with loaders["DataLoader, PIL, two views"].open() as views:
        batch = next(views)
    assert batch["image"].shape == batch["second view"].shape == (8, 3, 16, 16)
