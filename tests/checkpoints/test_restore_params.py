"""Parameters restored alone: equal to those of the full state, checked leaf by leaf."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.checkpoints import integrity
from satmip_jax.checkpoints.manager import CheckpointError, Checkpoints
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.models import abstract_params
from satmip_jax.training.step import build_program


@pytest.fixture(scope="module")
def saved(tiny_config, tiny_shards, tmp_path_factory):
    """A config with fsdp of 4, a workdir with its checkpoints 1 and 2, and state 2."""
    config = tiny_config("satmips", "--config.parallel.fsdp=4")
    program = build_program(config, tiny_shards.schema, len(tiny_shards), make_mesh(fsdp=4))
    first = program.init()
    second = jax.tree.map(lambda x: x + jnp.ones_like(x), first)
    workdir = tmp_path_factory.mktemp("fsdp")
    with Checkpoints(workdir) as checkpoints:
        for step, state in ((1, first), (2, second)):
            checkpoints.save(step, state, config, tiny_shards.schema)
        checkpoints.wait()
    return workdir, program, first, second


def params_on(program, mesh):
    return abstract_params(program.config, program.towers, program.schema, mesh)


@pytest.mark.parametrize("fsdp", [4, 2, 1])
def test_params_are_those_of_the_full_state_on_any_mesh(saved, fsdp):
    workdir, program, _, second = saved
    abstract = params_on(program, make_mesh(fsdp=fsdp))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        params = checkpoints.restore_params(abstract)
        full = checkpoints.restore(program.abstract)
    for wanted in (full.params, second.params):
        jax.tree.map(np.testing.assert_array_equal, params, wanted)
    shardings = jax.tree.map(lambda x: x.sharding, (params, abstract))
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, *shardings))
    named = integrity.named_leaves(params)
    kernel = next(x for name, x in named.items() if name.endswith("fc1.kernel"))
    assert kernel.addressable_shards[0].data.size * fsdp == kernel.size


def test_abstract_params_are_those_of_the_abstract_state(saved):
    _, program, _, _ = saved
    abstract = params_on(program, program.mesh)
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, abstract, program.abstract.params))


def rewrite_record(workdir, step, change):
    """Rewrite the record of a checkpoint."""
    path = workdir / "checkpoints" / str(step) / "run" / "metadata"
    run = json.loads(path.read_text())
    change(run["leaves"])
    path.write_text(json.dumps(integrity.with_checksum(run)))


def damage(leaves, prefix):
    """Change the checksum of the first leaf below `prefix`."""
    name = next(name for name in leaves if name.startswith(prefix))
    leaves[name][2] = "0" * 16


def test_only_damage_of_parameters_matters(saved, tmp_path, caplog):
    workdir, program, first, second = saved
    abstract = params_on(program, program.mesh)
    copy = tmp_path / "optimizer"
    shutil.copytree(workdir, copy)
    rewrite_record(copy, 2, lambda leaves: damage(leaves, "opt_state."))
    with Checkpoints(copy, read_only=True) as checkpoints:
        params = checkpoints.restore_params(abstract)
        jax.tree.map(np.testing.assert_array_equal, params, second.params)
        with pytest.raises(CheckpointError, match=r"intact:\n  2: opt_state.* checksum differs"):
            checkpoints.restore(program.abstract, step=2)
        assert "damaged" not in caplog.text
        assert int(checkpoints.restore(program.abstract).step) == int(first.step)

    rewrite_record(copy, 2, lambda leaves: damage(leaves, "params."))
    with Checkpoints(copy, read_only=True) as checkpoints:
        params = checkpoints.restore_params(abstract)
        jax.tree.map(np.testing.assert_array_equal, params, first.params)
        assert "checkpoint 2 is damaged and skipped: params." in caplog.text
        with pytest.raises(CheckpointError, match=r"intact:\n  2: params.* checksum differs"):
            checkpoints.restore_params(abstract, step=2)


def test_only_leaves_of_parameters_are_read(saved, monkeypatch):
    workdir, program, _, _ = saved
    opened, open_leaf = [], integrity.open_leaf
    monkeypatch.setattr(
        integrity, "open_leaf", lambda *args: (opened.append(args[1]), open_leaf(*args))[1]
    )
    with Checkpoints(workdir, read_only=True) as checkpoints:
        checkpoints.restore_params(params_on(program, program.mesh))
    assert sorted(opened) == sorted(integrity.named_leaves({"params": program.abstract.params}))


def test_params_of_another_model_are_named(saved):
    workdir, program, _, _ = saved
    abstract = params_on(program, program.mesh)
    wider = jax.ShapeDtypeStruct((3,), jnp.float32, sharding=abstract["log_scale"].sharding)
    other = {**abstract, "log_scale": wider, "new": wider}
    del other["image_encoder"]
    with (
        Checkpoints(workdir, read_only=True) as checkpoints,
        pytest.raises(CheckpointError, match=r"checkpoint 2 .* another model") as error,
    ):
        checkpoints.restore_params(other)
    for text in (
        "missing params.new",
        "unexpected params.image_encoder.",
        "params.log_scale is float32[], expected float32[3]",
    ):
        assert text in str(error.value)
