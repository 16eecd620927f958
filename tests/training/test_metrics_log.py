"""The log of a run: rows of metrics, TensorBoard events, a full disk."""

import json
import logging
import math
import struct
import time
from contextlib import nullcontext

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from satmip_jax.training.loop import Interrupted
from satmip_jax.training.metrics_log import (
    MetricsLog,
    TensorBoardWriter,
    append_row,
    keep_rows_before,
    read_knn_scores,
    read_rows,
)
from satmip_jax.training.monitor import NotFiniteError
from tests.conftest import full_disk


def read_events(folder):
    """The events that TensorBoard reads: of each file up to the first incomplete one."""
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while len(data) >= 12:
            (length,) = struct.unpack_from("<Q", data)
            if len(data) < length + 16:
                break
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[length + 16 :]
    return events


def scalars(folder):
    return [
        (event.step, value.tag, value.simple_value)
        for event in read_events(folder)
        for value in event.summary.value
    ]


def test_tensorboard_reads_the_scalars_and_hides_what_a_resumed_run_repeats(tmp_path):
    for start in (0, 2):  # the first start ends after step 3, its last checkpoint is 2
        writer = TensorBoardWriter(tmp_path, start)
        for step in range(start, start + 4):
            writer.write(step, {"loss": step / 2, "grad_norm": 1.0})
        writer.close()
    assert len(list(tmp_path.iterdir())) == 2
    events = read_events(tmp_path)
    assert [e.step for e in events if e.session_log.status == SessionLog.START] == [0, 2]
    assert [e.file_version for e in events if e.file_version] == ["brain.Event:2"] * 2
    assert scalars(tmp_path)[:3] == [(0, "loss", 0.0), (0, "grad_norm", 1.0), (1, "loss", 0.5)]
    assert all(event.wall_time > 1e9 for event in events)


def test_events_are_complete_before_and_after_a_full_disk(tmp_path):
    writer = TensorBoardWriter(tmp_path, 0)
    writer.write(0, {"loss": 0.0})
    (file,) = tmp_path.iterdir()
    for step, size in ((1, file.stat().st_size + 30), (2, 20), (3, 20)):
        with full_disk(size), pytest.raises(OSError, match="too large"):
            writer.write(step, {"loss": 1.0})
    writer.write(4, {"loss": 4.0})
    writer.close()
    assert [step for step, _, _ in scalars(tmp_path)] == [0, 4]


def test_a_full_disk_costs_rows_but_not_the_run(tmp_path, caplog):
    caplog.set_level(logging.INFO, "satmip_jax")
    with MetricsLog(tmp_path, start=0, total=40, batch_size=1) as log:
        for step in range(10):
            log.write(step, {"loss": 1.0})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        with full_disk(size + 5):  # rows are cut off in writing
            for step in range(10, 30):
                log.write(step, {"loss": 1.0})
        for step in range(30, 40):
            log.write(step, {"loss": 1.0})
    written = [*range(10), *range(30, 40)]
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == written
    assert [step for step, _, _ in scalars(tmp_path / "tensorboard")] == written
    assert caplog.text.count("could not be written") == 1
    assert "written again, from step 30 on" in caplog.text


def test_what_is_not_finite_is_null(tmp_path):
    with MetricsLog(tmp_path, start=0, total=1, batch_size=1) as log:
        log.write(0, {"loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.5})
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert -1 < time.time() - row.pop("time") < 3600  # whole seconds, rounded
    assert row == {"step": 0, "loss": None, "grad_norm": None, "learning_rate": 0.5}


def test_a_resumed_run_removes_the_rows_it_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for row in (
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},  # of the last step done
        {"step": 2, "knn_image": 0.5},  # of the state that is resumed
        {"step": 3, "loss": 3.0},
        {"step": 3, "knn_image": 0.75},
    ):
        append_row(path, row)
    with path.open("ab") as file:
        file.write(b'{"step": 1, "loss": \xff\xfe}\n{"step": 1, "lo')  # damaged, and cut off
    assert read_knn_scores(tmp_path) == {2: 0.5, 3: 0.75}
    keep_rows_before(path, 2)
    kept = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 2, "knn_image": 0.5}]
    assert read_rows(path) == kept
    append_row(path, {"step": 3, "loss": 3.5})
    assert len(read_rows(path)) == 4


@pytest.mark.parametrize("first", [0, 9])
def test_a_log_that_numbered_losses_from_0_is_resumed_without_a_gap(tmp_path, first):
    """Rows of an earlier version: losses one less than the scores of the same state."""
    path, starts = tmp_path / "metrics.jsonl", tmp_path / "environment.jsonl"
    if first:  # nothing but the missing number tells
        append_row(starts, {"step": 0, "devices": 1})
    for row in (
        {"step": first, "loss": 1.0},
        {"step": first + 10, "loss": 2.0},
        {"step": first + 11, "knn_image": 0.5},
        {"step": first + 20, "loss": 3.0},
    ):
        append_row(path, row)
    for _ in range(2):  # renumbered once
        with MetricsLog(tmp_path, start=first + 11, total=100, batch_size=1):
            pass
        assert read_rows(path) == [
            {"step": first + 1, "loss": 1.0},
            {"step": first + 11, "loss": 2.0},
            {"step": first + 11, "knn_image": 0.5},
        ]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "finished"),
        (Interrupted("stopped by SIGTERM"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (NotFiniteError("step 2: loss is nan"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_the_end_of_a_run_is_recorded(tmp_path, error, state):
    def recorded():
        return json.loads((tmp_path / "state.json").read_text())

    log = MetricsLog(tmp_path, start=1, total=3, batch_size=1)
    with pytest.raises(type(error)) if error else nullcontext(), log:
        assert recorded()["state"] == "running"  # as a process that is killed leaves it
        log.write(2, {"loss": 1.0})
        if error:
            raise error
    assert recorded().items() >= {"state": state, "step": 2, "planned": 3}.items()
    assert recorded()["reason"] == (f"{type(error).__name__}: {error}" if error else "")
