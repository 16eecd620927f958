"""`satmip bench scaling`: configs that differ in one value, and exponents."""

import jax
import pytest

from satmip_jax.bench import scaling
from satmip_jax.bench.timing import Measurement
from satmip_jax.config.conversion import differences, vary
from satmip_jax.config.validation import validate
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.metadata.fields import FIELDS, select_fields
from satmip_jax.models.vit import parse_vit, shape_of
from satmip_jax.planning import memory
from satmip_jax.training.step import build_program

KEYS = [
    (f"{part}.{name}", part, name)
    for part, name in (
        ("optimizer", "batch_size"),
        ("image", "size"),
        ("image", "encoder"),
        ("metadata", "fields"),
    )
]


def test_variants_differ_in_one_value(tiny_config):
    config = tiny_config("satmips", "--config.image.encoder=64x4x2/8")
    axes = scaling.variants(config, 8)
    assert list(axes["batch"]) == [4, 8, 16, 32]
    assert list(axes["side"]) == [8, 16, 32, 64]
    assert list(axes["depth"]) == [1, 2, 4, 8]
    assert list(axes["fields"]) == [1, 2, 4, 8, len(FIELDS)]
    assert list(axes["devices"]) == [1, 2, 4, 8]
    measured_value = {
        "batch": lambda config: config.optimizer.batch_size,
        "side": lambda config: config.image.size,
        "depth": lambda config: shape_of(parse_vit(config.image.encoder)[0])[1],
        "fields": lambda config: len(select_fields(config.metadata.fields)),
        "devices": lambda _: None,  # set by the mesh
    }
    for axis, values in axes.items():
        for value, changed in values.items():
            validate(changed)
            assert measured_value[axis](changed) in (value, None), (axis, value)
            same = vary(changed, {key: config.to_dict()[part][name] for key, part, name in KEYS})
            assert not differences(config, same)
            others = {a: f(changed) for a, f in measured_value.items() if a != axis}
            assert others == {a: f(config) for a, f in measured_value.items() if a != axis}
    schema, examples = memory.schema_of(config, None)
    program = build_program(axes["depth"][8], schema, examples, make_mesh(jax.devices()[:1]))
    blocks = program.abstract.params["image_encoder"]["encoder"]["blocks"]
    assert blocks["mlp"]["fc1"]["kernel"].shape == (8, 64, 256)


def test_exponents_are_those_of_the_last_doubling(tmp_path):
    def line(axis, value, seconds):
        facts = {"axis": axis, "at": value}
        return Measurement(
            "scaling", axis, "step time", seconds, "s", seconds, seconds, facts=facts
        )

    measurements = [line("batch", b, 0.5 + b) for b in (1, 2, 4)] + [
        line("side", s, s**4) for s in (1, 2)
    ]
    measurements.append(
        Measurement("scaling", "side", "memory", 7.0, "MiB/device", facts={"at": 2})
    )
    exponents = scaling.exponents(measurements)
    assert exponents["side"] == pytest.approx(4)
    assert 0.8 < exponents["batch"] < 1
    scaling.draw(measurements, tmp_path / "scaling.png", "toy")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
