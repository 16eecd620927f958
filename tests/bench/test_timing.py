"""Lines and tables of measurements."""

import io
import json

import pytest
from rich.console import Console

from satmip_jax.bench import timing
from satmip_jax.bench.timing import Measurement


def test_measurements_before_an_interrupt_are_kept(tmp_path):
    def interrupted():
        yield Measurement("scaling", "batch", "step time", 0.125, "s", facts={"at": 8})
        raise KeyboardInterrupt

    out, shown = tmp_path / "lines.jsonl", Console(file=io.StringIO(), width=200)
    with pytest.raises(KeyboardInterrupt):
        timing.write_measurements(interrupted(), out, shown)
    (line,) = out.read_text().splitlines()
    assert json.loads(line).items() >= {"variant": "batch", "at": 8, "value": 0.125}.items()
    assert "0.125" in shown.file.getvalue()
