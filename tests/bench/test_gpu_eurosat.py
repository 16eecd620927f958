"""Trainings of the report on a GPU: their order, length and resumption."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from satmip_jax.bench.gpu_eurosat import (
    LAST,
    OutOfTimeError,
    bench,
    choose_epochs,
    complete_runs,
    keep_small_model,
    runs,
)
from satmip_jax.data.batch_reader import read_all


def test_a_first_seed_of_everything_comes_before_the_second():
    planned = runs(["longitude", "spatial", "random"], tiny=False)
    assert len({run.name for run in planned}) == len(planned) == 3 * 2 * 3 * 3
    assert [run.seed for run in planned] == [0] * 18 + [1] * 18 + [2] * 18
    assert planned[0].name == "s8-longitude-simclr-seed0"


def test_epochs_fill_the_time_by_the_measured_rates_and_stay(tmp_path):
    for size, rate in (("s8", 1000.0), ("cpu", 2000.0)):
        rows = [
            {"variant": name, "metric": metric, "value": value}
            for name in ("simclr", "satmip", "satmips")
            for metric, value in (("image throughput", rate), ("step time", 1.0))
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"step-{size}.jsonl").write_text(text)
    planned = runs(["random"], tiny=False)  # 18 runs; an epoch takes 9 x 2 s and 9 x 1 s
    schemas = {"random": SimpleNamespace(splits={"train": 2000})}
    path = tmp_path / "epochs.json"
    seconds = 18 * 12 + 27 * 40
    assert choose_epochs(path, planned, schemas, seconds) == 40
    assert choose_epochs(path, planned, schemas, 10 * seconds) == 40  # runs must be comparable


def test_rows_of_an_interrupted_run_are_dropped(tmp_path):
    path = tmp_path / "eurosat.jsonl"
    rows = [
        {"run": "a", "metric": "knn5 image accuracy"},
        {"run": "a", "metric": LAST},
        {"run": "b", "metric": "knn5 image accuracy"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"run": "c", "met')
    assert complete_runs(path) == {"a"}
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows[:2]


def test_without_time_the_runs_that_are_left_are_counted(tmp_path, tiny_shards):
    data = {"random": tiny_shards.data_dir}
    done = {runs(["random"], tiny=True)[0].name}
    with pytest.raises(OutOfTimeError, match="2 of 3 runs are left"):
        list(bench(tmp_path, data, seconds=0, done=done, tiny=True))


def test_training_in_memory_reads_data_without_grain(tiny_shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    assert read_all(tiny_shards)["index"].tolist() == list(range(len(tiny_shards)))


def test_benchmarks_and_training_import_neither_grain_nor_tfds():
    modules = "bench.step, bench.loss, bench.augment, bench.knn, bench.kernels, training.loop"
    names = ", ".join(f"satmip_jax.{name}" for name in modules.split(", "))
    absent = "import sys; sys.modules['grain'] = sys.modules['tensorflow_datasets'] = None; "
    subprocess.run([sys.executable, "-c", f"{absent}import {names}"], check=True)


def test_only_a_complete_model_is_packed(tmp_path):
    name = "cpu-random-satmips-seed0"
    (tmp_path / "runs" / name).mkdir(parents=True)
    assert keep_small_model(tmp_path, set()) is None
    assert keep_small_model(tmp_path, {name}).name == "small_satmips.tar.gz"
