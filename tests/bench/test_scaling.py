"""What `satmip bench growth` turns up, and the powers that it reads off."""

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


def test_one_thing_is_turned_at_a_time(tiny_config):
    config = tiny_config("satmips", "--config.image.encoder=64x4x2/8")
    found = scaling.variants(config, 8)
    assert list(found["batch"]) == [4, 8, 16, 32]
    assert list(found["side"]) == [8, 16, 32, 64]
    assert list(found["depth"]) == [1, 2, 4, 8]
    assert list(found["fields"]) == [1, 2, 4, 8, len(FIELDS)]
    assert list(found["devices"]) == [1, 2, 4, 8]
    turned = {
        "batch": lambda config: config.optimizer.batch_size,
        "side": lambda config: config.image.size,
        "depth": lambda config: shape_of(parse_vit(config.image.encoder)[0])[1],
        "fields": lambda config: len(select_fields(config.metadata.fields)),
        "devices": lambda _: None,  # that is up to the mesh
    }
    for axis, values in found.items():
        for value, changed in values.items():
            validate(changed)
            assert turned[axis](changed) in (value, None), (axis, value)
            same = vary(changed, {key: config.to_dict()[part][name] for key, part, name in KEYS})
            assert not differences(config, same)
            others = {a: f(changed) for a, f in turned.items() if a != axis}
            assert others == {a: f(config) for a, f in turned.items() if a != axis}
    schema, examples = memory.schema_of(config, None)
    program = build_program(found["depth"][8], schema, examples, make_mesh(jax.devices()[:1]))
    blocks = program.abstract.params["image_encoder"]["encoder"]["blocks"]
    assert blocks["mlp"]["fc1"]["kernel"].shape == (8, 64, 256)


def test_powers_are_of_the_last_doubling(tmp_path):
    def line(axis, value, seconds):
        facts = {"axis": axis, "at": value}
        return Measurement("growth", axis, "step", seconds, "s", seconds, seconds, facts=facts)

    found = [line("batch", b, 0.5 + b) for b in (1, 2, 4)] + [line("side", s, s**4) for s in (1, 2)]
    found.append(Measurement("growth", "side", "memory", 7.0, "MiB/device", facts={"at": 2}))
    powers = scaling.exponents(found)
    assert powers["side"] == pytest.approx(4)
    assert 0.8 < powers["batch"] < 1
    scaling.draw(found, tmp_path / "growth.png", "toy")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
