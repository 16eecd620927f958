"""A config for own data: the fields that they know, sizes that fit, and it trains as written."""

import jax
import pytest

from satmip_jax.config.loading import load_config, load_method_configs
from satmip_jax.config.template import choose, write_config
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.errors import ConfigError
from satmip_jax.objectives import METHODS
from satmip_jax.training.setup import open_train_split
from satmip_jax.training.step import build_program
from tests.config.schemas import with_counts


def test_a_config_for_own_data_trains_as_written(tiny_shards_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_shards_dir)
    path = tmp_path / "new" / "mine.py"
    chosen, note, command = write_config(path, ".")
    assert note.startswith("note: a batch of 16 images has few negatives")
    assert note.endswith("prepare more images, or set config.optimizer.batch_size=32")
    assert command == f"satmip train --config {path} --workdir runs/mine"
    monkeypatch.chdir(tmp_path)  # from anywhere
    config = load_config(str(path))
    dataset = open_train_split(config)
    assert len(dataset) == 64
    assert (config.image.size, config.optimizer.batch_size) == (32, 16)
    assert "16" in chosen
    known = [name for name, stats in dataset.schema.fields.items() if stats.count]
    assert config.metadata.fields == "+".join(known)
    text = path.read_text()
    for name in known:
        assert f"#   {name}: {dataset.schema.fields[name].count}\n" in text
    program = build_program(config, dataset.schema, len(dataset), make_mesh())
    assert program.steps == 400
    assert config.eval.every == 80
    assert load_method_configs(str(path), [], list(METHODS)).keys() == METHODS.keys()
    with pytest.raises(ConfigError, match=r"mine\.py exists"):
        write_config(path, str(tiny_shards_dir))


@pytest.mark.parametrize("examples", [2, 7, 64, 5000, 1_000_000])
@pytest.mark.parametrize("side", [3, 32, 64, 100, 300])
def test_sizes_suit_the_data(tiny_shards, examples, side):
    schema = with_counts(tiny_shards.schema, image_size=side, location=5)
    chosen = choose(schema, examples)
    assert chosen["FIELDS"] == "location"
    assert 2 <= chosen["BATCH_SIZE"] <= examples
    assert 0 < chosen["IMAGE_SIZE"] <= min(side, 224)
    assert chosen["IMAGE_SIZE"] % chosen["PATCH"] == 0
    assert chosen["IN_MEMORY"] == (examples * side * side * 3 <= 2**31)


def test_data_without_metadata_or_labels_or_images(tiny_shards):
    schema = with_counts(tiny_shards.schema, classes=())
    chosen = choose(schema, 64)
    assert (chosen["METHOD"], chosen["EVAL_EVERY"]) == ("simclr", 0)
    with pytest.raises(ConfigError, match="needs at least 2"):
        choose(schema, 1)


def test_the_template_needs_a_folder(tiny_shards_dir):
    with pytest.raises(ConfigError, match=r"data\.dir is empty"):
        open_train_split(load_config("own"))
    config = load_config("own:simclr,runlocal", [f"--config.data.dir={tiny_shards_dir}"])
    assert len(open_train_split(config)) == 64
    assert isinstance(ShardDataset(config.data.dir, "train").schema.classes, tuple)
    assert jax.device_count() == 8  # 16 images are shared by all
