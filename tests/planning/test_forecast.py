"""Verdict, advice, report and JSON of a forecast, without a compiler."""

import io
import json

import pytest
from rich.console import Console

from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.advice import advice
from satmip_jax.planning.collectives import Collective, Transfer
from satmip_jax.planning.costs import Cost
from satmip_jax.planning.diagnosis import Diagnosis
from satmip_jax.planning.forecast import Forecast
from satmip_jax.planning.forecast_report import facts, tables

GIB = 2**30
FORWARD = "jit(step)/jvp(Towers.encode_image)/blocks_1/mlp/dot_general"


def made(name="h100", **changes):
    """A step of 10 ms of compute, 6 of them by traffic, and 0.5 ms of transfers, 0.3 exposed."""
    accelerator = ACCELERATORS[name]
    costs = [
        Cost("dot", FORWARD, "bf16[8,8]", 4e-3, flops=10**12, cycles=6_000_000, by_products=True),
        Cost("fusion.1", "jit(step)/optimizer/add", "f32[8]", 2e-3, times=3, cycles=3_000_000),
    ]
    link = accelerator.link
    gather = Transfer(
        Collective("all-gather", 8),
        "jit(step)/jvp()/shard_map/all_gather",
        {"f32": int(2e-4 * link)},
        1,
        0.0,
    )
    gradients = Transfer(
        Collective("all-reduce", 8), "", {"f32": int(3e-4 * link)}, 1, meanwhile=2e-4
    )
    values = {
        "topology": "8",
        "devices": 8,
        "needed": 10 * GIB,
        "arguments": GIB,
        "temporaries": 9 * GIB,
        "model_flops": 2e12,
        "peak": accelerator.bf16,
        "costs": costs,
        "transfers": [gather, gradients],
        "program": "__cudnn$fmhaSoftmax",
    }
    return Forecast(accelerator, **(values | changes))


def test_the_bound_is_compute_and_exposed_transfers():
    forecast = made()
    assert forecast.compute == pytest.approx(10e-3)
    assert forecast.exposed == pytest.approx(3e-4, rel=1e-6)
    assert forecast.mfu == pytest.approx(2e12 / 10.3e-3 / 989e12)
    record = json.loads(json.dumps(forecast.record()))
    assert record["step_bound_ms"] == pytest.approx(10.3)
    assert record["temporaries_gib"] == 9
    assert record["fits"] is True
    assert record["parts_ms"] == pytest.approx({"image encoder forward": 4, "optimizer": 6})
    assert [c["hidden"] for c in record["collectives"]] == [False, False]
    assert [o["times"] for o in record["operations"]] == [3, 1]


def test_a_tpu_is_given_in_cycles():
    record = made("v5e").record()
    assert record["estimated_cycles"] == 6_000_000 + 3 * 3_000_000
    assert "step_bound_ms" not in record


@pytest.mark.parametrize(
    ("name", "needed", "fits"), [("h100", 71, True), ("h100", 72, False), ("v5e", 14, True)]
)
def test_a_tenth_of_the_memory_is_left_to_other_arrays(name, needed, fits):
    """79.1 GiB of an H100 and 16 of a v5e."""
    assert made(name, needed=needed * GIB).fits is fits


def text_of(forecast, config):
    diagnosis = Diagnosis()
    diagnosis.facts += facts(forecast)
    diagnosis.tables += tables(forecast)
    diagnosis.notes += advice(forecast, config)
    console = Console(width=100, record=True, file=io.StringIO())
    diagnosis.show(console)
    return " ".join(console.export_text().split())


def test_the_report_names_bounds_and_estimates(tiny_config):
    config = tiny_config("simclr", "--config.dtype=bfloat16")
    gpu, tpu = text_of(made(), config), text_of(made("v5e"), config)
    assert "lower bound of the time 10.30 ms" in gpu
    assert "upper bound of MFU 19.6% of 989 TFLOP/s" in gpu
    assert "10.00 GiB of 79.11 GiB" in gpu
    assert "headroom 69.11 GiB: fits" in gpu
    assert "XLA's estimate 15.00 M cycles, 10.30 ms at 1.5 GHz" in tpu
    assert "lower bound of the time" not in tpu
    assert "all-gather 8 losses f32" in gpu


@pytest.mark.parametrize(
    ("overrides", "changes", "words"),
    [
        ((), {}, "memory traffic limits 58% of the bound"),
        ((), {}, "config.parallel.exchange=ring"),
        (("--config.dtype=float32",), {}, "config.dtype=bfloat16 halves"),
        ((), {"program": "HloModule"}, "attention is not fused"),
        ((), {"needed": 70 * GIB}, "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"),
        (("--config.parallel.micro_batch=2",), {}, "micro-batches about 7 times as large"),
        (
            (),
            {"transfers": [Transfer(Collective("all-reduce", 8), "", {"bf16": 10**9}, 1, 0.0)]},
            "1,000.0 MB of gradients per device are summed in bfloat16",
        ),
    ],
)
def test_advice_follows_from_the_program(tiny_config, overrides, changes, words):
    config = tiny_config("simclr", "--config.dtype=bfloat16", *overrides)
    assert words in " ".join(advice(made(**changes), config))


def test_a_good_step_gets_no_advice(tiny_config):
    config = tiny_config("simclr", "--config.dtype=bfloat16")
    costs = [Cost("dot", FORWARD, "bf16[8,8]", 1e-2, by_products=True)]
    assert advice(made(costs=costs, transfers=[]), config) == []


def test_a_step_without_room_has_no_program(tiny_config):
    forecast = made(
        "v5e", needed=20 * GIB, temporaries=0, costs=[], transfers=[], program="", arguments=0
    )
    record = forecast.record()
    assert record["fits"] is False
    assert record["estimated_cycles"] is None
    assert record["mfu_bound"] is None
    text = text_of(forecast, tiny_config("simclr"))
    assert "20.00 GiB of 16.00 GiB" in text
    assert "headroom -4.00 GiB: does not fit" in text
