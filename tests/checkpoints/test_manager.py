"""Checkpoints: damage is named and skipped, the best are kept, a full disk is survived."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from satmip_jax.checkpoints import integrity
from satmip_jax.checkpoints.manager import CheckpointError, Checkpoints, SaveError
from satmip_jax.checkpoints.read_back import ReadBack, short_reason
from satmip_jax.config.defaults import default_config
from satmip_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from tests.conftest import full_disk

MESH = make_mesh()


def state(step):
    """A small state; `b` and `zero` are sharded over the devices."""
    spread = batch_sharding(MESH)
    everywhere = replicated(MESH)
    noise = jax.random.normal(jax.random.key(step), (64, 300))
    return {
        "step": jax.device_put(jnp.int32(step), everywhere),
        "params": {"b": jax.device_put(noise, spread), "zero": jax.device_put(noise * 0, spread)},
    }


ABSTRACT = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
)


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, state(step), default_config(), SCHEMA)
    checkpoints.settle()


@pytest.fixture(scope="module", autouse=True)
def _schema(tiny_shards):
    global SCHEMA
    SCHEMA = tiny_shards.schema


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A workdir with checkpoints 1, 2 and 3."""
    workdir = tmp_path_factory.mktemp("three")
    with Checkpoints(workdir, keep=3) as checkpoints:
        save(checkpoints, 1, 2, 3)
    return workdir


@pytest.mark.parametrize("spec", [P(), P("x"), P(None, "y"), P("y", "x"), P(None, None, "x")])
def test_a_checksum_depends_on_every_bit_but_not_on_the_sharding(spec):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    values = np.random.default_rng(0).normal(size=(8, 4, 6)).astype(np.float32)
    sharding = jax.sharding.NamedSharding(mesh, spec)
    changed = values.copy().view(np.uint32)
    changed[5, 2, 3] ^= 1  # one bit
    swapped = values.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    sums = [
        integrity.record({"w": jax.device_put(x, s)})["w"][2]
        for x in (values, changed.view(np.float32), swapped)
        for s in (sharding, jax.devices()[0])
    ]
    assert sums[0] == sums[1] != sums[2] == sums[3] != sums[4] == sums[5] != sums[0]


def test_a_leaf_of_64_bits_has_a_checksum(tmp_path):
    """A step counter of a run with 64-bit numbers: saved, compared and restored."""
    with jax.enable_x64(True):
        numbers = jax.device_put(jnp.arange(5, dtype=jnp.int64) << 40, replicated(MESH))
        state = {"step": numbers}
        changed = integrity.record({"step": numbers.at[4].add(1)})
        assert integrity.record(state)["step"][2] != changed["step"][2]
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, state, default_config(), SCHEMA)
            checkpoints.wait()
            abstract = jax.ShapeDtypeStruct((5,), jnp.int64, sharding=numbers.sharding)
            restored = checkpoints.restore({"step": abstract})
    np.testing.assert_array_equal(restored["step"], np.arange(5) << 40)


def test_a_config_in_a_checkpoint_is_validated(three, tmp_path):
    """A value that would end in a traceback is refused by name; an older checkpoint is taken."""
    workdir = tmp_path / "run"
    shutil.copytree(three, workdir)
    for step, value in ((3, 0), (2, None), (1, 8)):
        path = workdir / "checkpoints" / str(step) / "run" / "metadata"
        run = json.loads(path.read_text())
        config = json.loads(run["config"])
        config["metadata"]["heads"] = value
        run = integrity.with_checksum(run | {"config": json.dumps(config)})
        path.write_text(json.dumps(run))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        with pytest.raises(CheckpointError, match=r"metadata\.heads is 0; it must be at least 1"):
            checkpoints.run(3)
        with pytest.raises(CheckpointError, match=r"metadata\.heads is None; the default is 8"):
            checkpoints.run(2)
        assert checkpoints.run()[0].metadata.heads == 8


def newest_data(folder):
    """The file that holds most of the values."""
    return max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)


def tear(folder):
    path = newest_data(folder)
    path.write_bytes(path.read_bytes()[:1000])


def flip_a_bit(folder):
    data = bytearray(newest_data(folder).read_bytes())
    data[len(data) // 2] ^= 4
    newest_data(folder).write_bytes(data)


def lie(folder):
    """An untrusted checkpoint whose record does not describe its leaves."""
    path = folder / "run" / "metadata"
    run = json.loads(path.read_text())
    run["leaves"]["params.b"] = run["leaves"]["params.zero"]
    path.write_text(json.dumps(integrity.with_checksum(run)))


def rename_a_leaf(folder):
    """Change one bit of the record of leaves."""
    path = folder / "run" / "metadata"
    path.write_text(path.read_text().replace("params.zero", "params.zdro", 1))


def rename_a_key(folder):
    """Change one bit of orbax's metadata of the leaves."""
    path = folder / "state" / "array_metadatas" / "process_0"
    path.write_text(path.read_text().replace('"array_metadata":', '"array_metadatb":', 1))


DAMAGES = {
    "torn": (tear, "params.b cannot be read"),
    "bit": (flip_a_bit, "params.b (has changed|cannot be read)"),
    "lost": (lambda folder: newest_data(folder).unlink(), "params.b cannot be read"),
    "index lost": (lambda folder: (folder / "state/manifest.ocdbt").unlink(), "step is missing"),
    "description torn": (
        lambda folder: (folder / "state/_METADATA").write_text('{"tree'),
        "_METADATA is not JSON",
    ),
    "notes changed": (rename_a_key, "cannot be restored"),
    "no run": (lambda folder: shutil.rmtree(folder / "run"), "run/metadata is missing"),
    "a bit of the run": (rename_a_leaf, "run/metadata has changed"),
    "another record": (lie, "params.b has changed: its checksum differs"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_newest_intact_checkpoint_restored(three, tmp_path, damage, caplog):
    harm, reason = DAMAGES[damage]
    workdir = tmp_path / "run"
    shutil.copytree(three, workdir)
    harm(workdir / "checkpoints" / "3")

    with Checkpoints(workdir, read_only=True) as checkpoints:
        with pytest.raises(CheckpointError, match=f"no checkpoint .* intact:\n  3: .*{reason}"):
            checkpoints.restore(ABSTRACT, step=3)
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 2
        checkpoints.run()
    assert (workdir / "checkpoints" / "3").is_dir()

    caplog.clear()
    with Checkpoints(workdir, keep=3) as checkpoints:
        restored = checkpoints.restore(ABSTRACT)
        jax.tree.map(np.testing.assert_array_equal, restored, state(2))
        assert "checkpoint 3 is damaged" in caplog.text
        assert "going back to checkpoint 2" in caplog.text
        save(checkpoints, 3)  # the step is reached again
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 3
    assert (workdir / "damaged" / "3").is_dir()


@pytest.mark.parametrize("name", ["run/metadata", "state/array_metadatas/process_0"])
def test_a_torn_file_is_found_before_older_checkpoints_are_deleted(name, tmp_path, monkeypatch):
    wait = ReadBack._wait_until_complete

    def tear(self):
        done = wait(self)
        if self.step == 3:
            path = tmp_path / "checkpoints" / "3" / name
            path.write_bytes(path.read_bytes()[:30])
        return done

    monkeypatch.setattr(ReadBack, "_wait_until_complete", tear)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step in (2, 3):
            save(checkpoints, step)
            checkpoints.settle()
        assert checkpoints.latest == 2
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(ABSTRACT), state(2))


def test_without_an_intact_checkpoint_nothing_is_restored_or_moved(three, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(three, workdir)
    for folder in (workdir / "checkpoints").iterdir():
        tear(folder)
    with (
        Checkpoints(workdir) as checkpoints,
        pytest.raises(CheckpointError, match=r"intact:\n  3: .*\n  2: .*\n  1: .*\nCopy an"),
    ):
        checkpoints.restore(ABSTRACT)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2", "3"]


def test_the_best_and_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in [(1, 0.5), (2, 0.8), (3, 0.6), (4, 0.7), (5, 0.1)]:
            save(checkpoints, step)
            checkpoints.scores[step] = score
        assert checkpoints.best == 2
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert sorted(int(p.name) for p in checkpoints.folder.iterdir()) == [2, 4, 5]


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    broken = state(2)
    broken["params"]["b"] = broken["params"]["b"].at[3, 4].set(jnp.inf)
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        with pytest.raises(CheckpointError, match=r"after step 2 .*params\.b \(1 of 19200\)"):
            checkpoints.save(2, broken, default_config(), SCHEMA)
        assert checkpoints.latest == 1


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Failed to write: File too large [os_error_code='27'] [spec='{}']", "File too large"),
        (f"OUT_OF_RANGE: {'x' * 900}: File too large [os_error_code='27']", "File too large"),
        ("while saving: [Errno 28] No space left on device: '/a'", "No space left on device: '/a'"),
    ],
)
def test_the_reason_of_the_operating_system_is_kept(message, shown):
    reason = short_reason(ValueError(message))
    assert reason.endswith(shown)
    assert reason.startswith(message[:14])
    assert len(reason) <= 500


# tensorstore reports to an event loop that orbax has closed by then
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_costs_a_checkpoint_but_not_the_run(tmp_path, caplog):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        save(checkpoints, 1)
        for size in (30_000, 100):  # fails in writing the values; fails at once
            with full_disk(size):
                save(checkpoints, 2)
            logged = caplog.text
            caplog.clear()
            assert "checkpoint 2 could not be written" in logged
            assert "Checkpoints kept: 1" in logged
            assert "too large" in logged.lower()
            with pytest.raises(SaveError, match=r"newest checkpoint .* is 1"):
                checkpoints.wait()
            assert [p.name for p in checkpoints.folder.iterdir()] == ["1"]  # no space is held
        save(checkpoints, 3)
        checkpoints.wait()
        restored = checkpoints.restore(ABSTRACT)
        jax.tree.map(np.testing.assert_array_equal, restored, state(3))
