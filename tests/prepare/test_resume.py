"""Resuming interrupted preparations: finished shards are kept, the result is the same."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.prepare.run import PrepareError, prepare
from satmip_jax.runtime import process_pool
from satmip_jax.sources.eurosat import EuroSAT
from tests.conftest import REPOSITORY
from tests.prepare.fake_source import FakeSource, contents, jpeg, make


def test_a_second_run_does_nothing(tmp_path, monkeypatch):
    make(tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(FakeSource, "read", None)  # would fail if called
    report = make(tmp_path / "out")
    assert report.resumed == 13
    assert report.splits == {"train": 10, "val": 3}
    assert contents(tmp_path / "out") == before


def test_unfinished_shards_are_done_again(tmp_path):
    make(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    out = tmp_path / "out"
    make(out)
    marks = sorted(p for p in (out / ".prepare").glob("*.json") if p.name != "plan.json")
    shards = sorted(out.glob("*.array_record-*"))
    assert len(marks) == len(shards) == 4
    marks[0].unlink()  # killed after the shard, before its mark
    marks[1].write_text(marks[1].read_text()[:50])  # a truncated mark
    shards[2].write_bytes(shards[2].read_bytes()[:-9])  # a truncated shard
    (out / f".{shards[3].name}.123.tmp").write_bytes(b"half")  # what a kill leaves
    (out / "schema.json").unlink()
    with pytest.raises(ValueError, match="no prepared data"):
        ShardDataset(out, "train")
    report = make(out)
    assert report.resumed == 3  # val, the only intact one
    assert contents(out) == expected


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """A small EuroSAT: 60 chips in folders."""
    folder = tmp_path_factory.mktemp("chips")
    rows = ["filename,label,split,longitude,latitude,country_code"]
    for i in range(60):
        label = ("Forest", "River", "SeaLake")[i % 3]
        path = folder / "EuroSAT_RGB" / label / f"{label}_{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i, 64, 64) if i % 7 else jpeg(i, 80, 90))
        split = "val" if i % 5 == 0 else "train"
        rows.append(f"{label}/{path.name},{label},{split},{i},{i / 2},FRA")
    (folder / "meta.csv").write_text("\n".join(rows))
    return folder


def test_workers_make_the_same_bytes(tmp_path, chips, capfd):
    for workers in (0, 2):
        report = prepare(
            EuroSAT([chips]), tmp_path / str(workers), image_size=64, shard_size=7, workers=workers
        )
        assert report.splits == {"train": 48, "val": 12}
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    assert "60/60" in capfd.readouterr().err  # the bar


SLOW = textwrap.dedent(
    """
    import sys, time
    from satmip_jax.prepare.run import prepare
    from satmip_jax.sources.eurosat import EuroSAT

    class Slow(EuroSAT):
        def read(self, ref, problems):
            time.sleep(0.1)
            return super().read(ref, problems)

    if __name__ == "__main__":
        prepare(Slow([sys.argv[1]]), sys.argv[2], image_size=64, shard_size=4, workers=2)
    """
)


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(c) for c in path.read_text().split()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to see processes")
def test_kill_9_at_any_moment(tmp_path, chips):
    prepare(EuroSAT([chips]), tmp_path / "whole", image_size=64, shard_size=4, workers=0)
    expected = contents(tmp_path / "whole")
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)}
    rng = random.Random(0)

    def marks() -> int:
        return len(list((out / ".prepare").glob("*-of-*.json")))

    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, script, chips, out], env=environment, stderr=subprocess.DEVNULL
        )
        before, deadline = marks(), time.monotonic() + 300
        while marks() < before + 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        workers = children(process.pid)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not [w for w in workers if Path(f"/proc/{w}").exists()], "workers were left behind"
        assert not (out / "schema.json").exists()
        for path in out.glob("eurosat-*"):  # files with their final names are complete
            assert path.read_bytes() == expected[path.name]

    report = prepare(EuroSAT([chips]), out, image_size=64, shard_size=4, workers=0)
    assert report.resumed >= 6 * 4 - 4
    assert contents(out) == expected


def work(task: str, tick) -> None:
    tick()
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "fail":
        raise ValueError("this one failed")


class Bar:
    n = 0

    def update(self, n: int = 1) -> None:
        self.n += n


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("die", process_pool.WorkerDiedError, "a worker process was killed"),
        ("fail", ValueError, "this one"),
    ],
)
def test_workers_that_die_or_fail(task, error, message):
    with pytest.raises(error, match=message):
        process_pool.run(work, ["ok", task, "ok"], workers=1, bar=Bar())


def test_processes_of_others_survive_a_pool_that_ends_early():
    context = multiprocessing.get_context("spawn")
    gate = context.Event()
    results = process_pool.map_in_order(abs, range(9), workers=1)
    next(results)
    other = context.Process(target=gate.wait)  # of another thread, after the pool has started
    other.start()
    results.close()
    gate.set()
    other.join()
    assert other.exitcode == 0


def test_a_dead_worker_is_explained(tmp_path, monkeypatch):
    def run(*_, **__):
        raise process_pool.WorkerDiedError("a worker died: use fewer workers")

    monkeypatch.setattr(process_pool, "run", run)
    with pytest.raises(PrepareError, match=r"fewer workers \(--workers\)\. Finished shards are"):
        make(tmp_path / "out")
