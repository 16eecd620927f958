"""Preparation by Apache Beam: the same bytes and the same report as by local workers."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.prepare.run import PrepareError, prepare
from satmip_jax.prepare.shard_job import Job, Options, Task
from satmip_jax.sources.base import Ref, SourceError
from satmip_jax.sources.fmow import FMoW
from satmip_jax.sources.registry import open_source

REPOSITORY = Path(__file__).resolve().parents[2]

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason='Apache Beam is not installed: pip install "satmip-jax[beam]"',
)
# Beam's own imports, and what it leaves open in this process.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def contents(out: Path) -> dict[str, object]:
    """The files of a prepared folder; the report without its duration."""
    files: dict[str, object] = {
        str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()
    }
    report = json.loads((out / "prepare_report.json").read_text())
    return files | {"prepare_report.json": {k: v for k, v in report.items() if k != "seconds"}}


def make(source, out: Path, **options):
    options = {"image_size": 32, "shard_size": 4, "progress": False, "workers": 0, **options}
    return prepare(source, out, **options)


BAD = {"train": "truncated JPEG", "val": "its JSON record is not JSON"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """60 synthetic scenes in fMoW's layout, one bad one in each split."""
    folder = tmp_path_factory.mktemp("scenes")
    open_source("synthetic", [folder], train=48, val=12, size=48, seed=0)
    train, val = (sorted((folder / split).rglob("*_rgb.jpg"))[3] for split in ("train", "val"))
    train.write_bytes(train.read_bytes()[:-40])
    val.with_suffix(".json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def local(scenes, tmp_path_factory) -> dict[str, object]:
    """The scenes as prepared by local workers."""
    out = tmp_path_factory.mktemp("local") / "out"
    report = make(FMoW([scenes]), out)
    assert [(split, reason) for split, _, reason in report.bad] == list(BAD.items())
    assert report.splits == {"train": 47, "val": 11}
    return contents(out)


# --- the same result ------------------------------------------------------------------------------


@needs_beam
@pytest.mark.parametrize("workers", [0, 2])
def test_same_bytes_and_report_as_local_workers(scenes, local, tmp_path, workers, capfd):
    report = make(FMoW([scenes]), tmp_path / "out", workers=workers, runner="beam", progress=True)
    assert contents(tmp_path / "out") == local
    assert [(split, reason) for split, _, reason in report.bad] == list(BAD.items())
    assert "60/60" in capfd.readouterr().err  # the bar


@needs_beam
def test_real_scenes(real_data, tmp_path):
    for runner in ("local", "beam"):
        source = open_source("fmow", [real_data / "worldview"], classes="folders")
        report = make(source, tmp_path / runner, runner=runner)
        assert sum(report.splits.values()) == 26
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


# --- interruptions and failures -------------------------------------------------------------------


class Logged(FMoW):
    """Notes what is read, in a file, because Beam works on a copy of the source."""

    log: Path

    def read(self, ref, problems):
        with self.log.open("a") as file:
            file.write(f"{ref.id}\n")
        return super().read(ref, problems)


@needs_beam
def test_a_shard_that_beam_runs_twice_is_written_once(scenes, local, tmp_path):
    source = Logged([scenes])
    source.log = tmp_path / "log"
    make(source, tmp_path / "out", runner="beam", beam_options="--direct_runner_bundle_repeat=1")
    assert sorted(source.log.read_text().split()) == sorted(ref.id for ref in source.refs())
    assert contents(tmp_path / "out") == local


SLOW = textwrap.dedent(
    """
    import sys, time
    from satmip_jax.prepare.run import prepare
    from satmip_jax.sources.fmow import FMoW

    class Slow(FMoW):
        def read(self, ref, problems):
            time.sleep(0.1)
            return super().read(ref, problems)

    if __name__ == "__main__":
        prepare(
            Slow([sys.argv[1]]), sys.argv[2], image_size=32, shard_size=4, workers=2, runner="beam"
        )
    """
)


def in_session(session: int) -> list[str]:
    """The processes of a session, zombies left out; a field of /proc/*/stat is its number."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(session) and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@needs_beam
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux to see processes")
def test_resume_after_kill_9(scenes, local, tmp_path):
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, script, scenes, out],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while not (done := list((out / ".prepare").glob("*-of-*.json"))):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while (left := in_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "workers were left behind"
    assert not (out / "schema.json").exists()

    done = list((out / ".prepare").glob("*-of-*.json"))  # workers may have finished their shards
    before = {path: path.stat().st_mtime_ns for path in done}
    report = make(FMoW([scenes]), out, runner="beam")
    examples = sum(mark["length"] + len(mark["bad"]) for mark in map(read_json, done))
    assert 0 < report.resumed == examples < 60
    assert {path: path.stat().st_mtime_ns for path in done} == before
    after = contents(out)
    assert after.pop("prepare_report.json")["resumed"] == examples
    assert after == {k: v for k, v in local.items() if k != "prepare_report.json"}


def read_json(path: Path):
    return json.loads(path.read_text())


anything = st.characters(exclude_categories=())  # lone surrogates, too
parts = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(anything, max_size=20)
refs = st.builds(
    Ref, st.text(anything, max_size=20), st.just("train"), st.lists(parts, max_size=4).map(tuple)
)


@needs_beam
@given(refs=st.lists(refs, max_size=4).map(tuple))
@settings(max_examples=50, deadline=None)
def test_tasks_survive_saving(refs):
    from satmip_jax.prepare.beam import _load, _save

    task = Task("train", 2, 7, refs)
    with tempfile.TemporaryDirectory() as out:
        job = Job(None, "x", Options(32, 95, None, 10**6, 4), Path(out))
        (Path(out) / ".prepare").mkdir()
        assert repr(_load(job, *_save(job, [task]))) == repr(task)  # repr: 1 is not 1.0


class Failing(FMoW):
    def read(self, ref, problems):
        raise OSError("No space left on device")


@needs_beam
def test_a_failed_pipeline_is_explained(scenes, tmp_path):
    with pytest.raises(PrepareError, match=r"pipeline failed: .*No space left on device.* resumes"):
        make(Failing([scenes]), tmp_path / "out", runner="beam")
    assert not (tmp_path / "out" / "schema.json").exists()


@needs_beam
def test_workers_that_write_elsewhere_are_explained(scenes, tmp_path, monkeypatch):
    from satmip_jax.prepare import beam

    monkeypatch.setattr(beam, "_write", lambda name, job: None)  # as in a container
    monkeypatch.setattr(beam, "_TIMEOUT", 0.0)
    with pytest.raises(PrepareError, match=r"15 of 15 shards are not in .*network file system"):
        make(FMoW([scenes]), tmp_path / "out", runner="beam")


# --- options --------------------------------------------------------------------------------------


@needs_beam
def test_options_reach_beam():
    from satmip_jax.prepare.beam import pipeline_options

    options = pipeline_options('--runner=FlinkRunner --flink_master="a b:1" --x_unknown=2', None)
    given = options.get_all_options(drop_default=True, retain_unknown_options=True)
    assert given["runner"] == "FlinkRunner"
    assert given["flink_master"] == "a b:1"
    assert given["x_unknown"] == "2"
    assert "direct_num_workers" not in given


@needs_beam
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_options": '--project="x'}, "--beam-options .*: Beam cannot read them: No closing"),
        ({"beam_options": "--direct_running_mode=fast"}, "Beam cannot read them"),
        (
            {"beam_options": "--runner=FlinkRunner", "workers": 3},
            "--workers 3: .* give FlinkRunner",
        ),
        ({"beam_options": "--runner=NoRunner", "workers": None}, "pipeline failed: .*NoRunner"),
    ],
)
def test_wrong_options_are_rejected(scenes, tmp_path, options, message):
    with pytest.raises(PrepareError, match=message):
        make(FMoW([scenes]), tmp_path / "out", runner="beam", **options)


def test_options_without_beam(tmp_path):
    with pytest.raises(PrepareError, match="--beam-options '--x': only with --runner beam"):
        make(FMoW([tmp_path]), tmp_path / "out", beam_options="--x")
    with pytest.raises(PrepareError, match="--runner spark: must be local or beam"):
        make(FMoW([tmp_path]), tmp_path / "out", runner="spark")


def test_remote_sources_are_rejected():
    with pytest.raises(SourceError, match="s3://bucket/fmow is remote: mount it"):
        open_source("fmow", ["s3://bucket/fmow"])


def test_missing_beam_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # cannot be imported
    monkeypatch.delitem(sys.modules, "satmip_jax.prepare.beam", raising=False)
    monkeypatch.delattr("satmip_jax.prepare.beam", raising=False)
    with pytest.raises(PrepareError, match=r'needs Apache Beam: pip install "satmip-jax\[beam\]"'):
        make(FMoW([tmp_path]), tmp_path / "out", runner="beam")
    assert not (tmp_path / "out").exists()
