"""What the benchmarks of loading and preparing measure is the real work."""

import itertools

import numpy as np
import pytest

from satmip_jax.bench import pipeline, prepare, synthetic_data, torch_loader
from satmip_jax.data import images
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.metadata.record import Problems


@pytest.fixture
def job(tiny_shards):
    return pipeline.Job(tiny_shards, batch_size=8, batches=2, workers=1, view=16)


def test_loaders_are_measured_and_leave_nothing(job, monkeypatch):
    monkeypatch.setattr(torch_loader, "installed", lambda: False)
    found = pipeline.bench(job, rounds=1)
    metrics = {(m.variant, m.metric): m for m in found}
    for variant in ("decoding alone", "satmip, threads", "satmip, processes"):
        rate = metrics[variant, "rate"]
        assert (rate.bench, rate.unit, rate.rounds) == ("pipeline", "images/s", 1)
        assert rate.facts["size"] == 32
        assert rate.facts["workers"] == 1
        assert metrics[variant, "processes left"].value == 0
    assert metrics["satmip, processes", "worker memory"].unit == "MiB"
    assert ("satmip, threads", "worker memory") not in metrics
    assert not any("DataLoader" in m.variant for m in found)


def test_decoding_alone_decodes_every_file(job, monkeypatch):
    decoded = []
    monkeypatch.setattr(images, "decode_square", lambda data, side: decoded.append((data, side)))
    files = [b"a", b"b", b"c"]
    pipeline._start_decoding(files, 32)
    assert pipeline.decode_some(2, 4) == 4
    assert decoded == [(b"c", 32), (b"a", 32), (b"b", 32), (b"c", 32)]


def test_records_of_the_peer_are_ours(job):
    """The data set that PyTorch's DataLoader is given, without PyTorch."""
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
    found = pipeline.loaders(job)
    with (
        found["DataLoader, same decoder"].open() as theirs,
        found["satmip, threads"].open() as ours,
    ):
        for one, other in itertools.islice(zip(theirs, ours, strict=False), 3):
            np.testing.assert_array_equal(one["image"], other["image"])
            np.testing.assert_array_equal(one["index"], other["index"])
    with found["DataLoader, PIL, two views"].open() as views:
        batch = next(views)
    assert batch["image"].shape == batch["second view"].shape == (8, 3, 16, 16)


def test_drawn_shards_hold_each_picture_several_times(tmp_path):
    dataset = synthetic_data.draw_shards(tmp_path, 3, 32, copies=2)
    assert len(dataset) == 6
    assert [dataset[i]["image"] for i in range(3)] == [dataset[i]["image"] for i in range(3, 6)]


def test_opencv_alone_gives_the_bytes_of_prepare(tmp_path):
    source = synthetic_data.draw(tmp_path, 4, 48)
    for ref in source.refs():
        example = source.read(ref, Problems())
        square = prepare.make_square(example, 32, source.context_ratio)
        assert prepare.opencv_square(example.image, square, 32) == square.data
    found = prepare.bench(source, count=4, size=32, rounds=1)
    rates = [m for m in found if m.unit == "images/s"]
    assert [m.variant for m in rates] == ["prepare", "make_square", "OpenCV alone"]
    assert {m.facts["images"] for m in found} == {4}
    shares = {m.variant: m.value for m in found if m.metric == "of OpenCV alone"}
    for m in rates:
        assert shares[m.variant] == pytest.approx(100 * m.value / rates[-1].value)
