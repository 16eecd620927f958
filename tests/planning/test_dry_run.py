"""The doctor's numbers are those of the program that then runs."""

import json
import shutil
import subprocess
import sys

import jax
import pytest

from satmip_jax.data.loaders import InMemoryBatches
from satmip_jax.distributed import sharding
from satmip_jax.planning import memory
from satmip_jax.planning.dry_run import diagnose
from satmip_jax.training.loop import train
from satmip_jax.training.step import build_program
from tests.conftest import TINY


def test_a_plan_describes_what_then_runs(tiny_config, tiny_shards):
    config = tiny_config("satmips", "--config.parallel.fsdp=2", "--config.parallel.micro_batch=1")
    diagnosis = diagnose(config)
    assert diagnosis.problems == []
    mesh = sharding.make_mesh(fsdp=2)
    program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
    with InMemoryBatches(tiny_shards, mesh, batch_size=16, seed=0) as batches:
        batch = next(batches)
    planned = jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), memory.abstract_batch(program))
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), batch) == planned
    state = program.init()
    local = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    assert diagnosis.numbers["state_bytes"] == local
    facts = {quantity: value for _, quantity, value in diagnosis.facts}
    assert facts["images"] == "16 in total, 2 per device"
    assert facts["micro-batches"] == "2 of 1 images per device"
    assert facts["negatives, satmip"].startswith("15 per anchor")
    few, images = diagnosis.notes
    assert few.startswith("a batch of 16 images has few negatives")
    side = tiny_shards.schema.image_size
    assert facts["images of a batch"] == f"{2 * 3 * side**2 / 2**20:.2f} MiB"
    every = f"{64 * 3 * side**2 / 2**20:.2f} MiB"
    assert images == (
        f"config.data.in_memory needs {every} more on every device, for all 64 images of 'train'"
    )


def test_direct_prediction_is_planned_before_its_clusters_exist(tiny_config):
    fields = ["--config.metadata.fields=location", "--config.method.geo_clusters=7"]
    diagnosis = diagnose(tiny_config("metapred", *fields))
    assert diagnosis.problems == []
    facts = {quantity.strip(): value for _, quantity, value in diagnosis.facts}
    assert "heads_geo_cluster" in facts
    assert not any("negatives" in note for note in diagnosis.notes)  # it has none


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.optimizer.batch_size=20"], "is not a multiple of the 8 devices: use 16 or 24"),
        (["--config.optimizer.batch_size=72"], "a batch would contain duplicates; use at most 64"),
        (["--config.parallel.fsdp=3"], "use one of 1, 2, 4, 8"),
        (
            ["--config.parallel.micro_batch=3"],
            "micro_batch is 3, which does not divide the 2 images",
        ),
    ],
)
def test_problems_are_reported_before_anything_is_compiled(tiny_config, overrides, message):
    diagnosis = diagnose(tiny_config("satmips", *overrides))
    assert len(diagnosis.problems) == 1
    assert message in diagnosis.problems[0]


def test_the_command_plans_for_more_devices_than_present(tiny_shards_dir):
    """64 devices, without data as well: a fresh process, as the number is set before jax starts."""
    command = [sys.executable, "-m", "satmip_jax.cli", "doctor", "--devices", "64", "--config"]
    command += ["configs/eurosat.py:simclr,cpu", *TINY, "--config.optimizer.batch_size=64"]
    command += [f"--config.data.dir={tiny_shards_dir}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    words = " ".join(done.stdout.split())
    assert "64 x cpu" in words
    assert "data 64 x fsdp 1; data across 8 hosts over the network" in words
    assert "host 1 reads 8 rows: 8-15" in words
    assert "64 in total, 1 per device" in words
    assert "126 per anchor" in words
    assert "no problems found" in words


def test_fields_that_no_image_knows_are_a_problem(tiny_config, tiny_shards_dir, tmp_path):
    folder = shutil.copytree(tiny_shards_dir, tmp_path / "shards")
    schema = json.loads((folder / "schema.json").read_text())
    schema["fields"]["timestamp"]["count"] = 0
    (folder / "schema.json").write_text(json.dumps(schema))
    options = (f"--config.data.dir={folder}", "--config.metadata.fields=Time")
    # a batch that 8 devices cannot share, so that nothing is compiled
    fields, batch = diagnose(
        tiny_config("satmips", *options, "--config.optimizer.batch_size=20")
    ).problems
    assert "fields is 'Time' (timestamp), and no image of 'train' in" in fields
    assert "the data know gsd (" in fields
    assert "is not a multiple of the 8 devices" in batch
    with pytest.raises(ValueError, match="no image of 'train'"):
        train(tiny_config("satmips", *options), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
