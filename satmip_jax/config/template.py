"""A config file for prepared data, with the fields that they know and sizes that suit them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from satmip_jax.config.fields import known_fields
from satmip_jax.config.loading import config_folder, load_config
from satmip_jax.config.validation import small_batch_note
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import is_remote

TEMPLATE = "own.py"
IN_MEMORY_BYTES = 2 << 30  # decoded images that a device surely holds
CPU_IMAGES = 100_000  # length of a training on a laptop: about an hour at 64 px
EPOCHS = 100  # for fewer images
SCORES = 5  # kNN evaluations per training


def write_config(path: Path, data: str) -> list[str]:
    """Write a commented config for a prepared folder; it trains as written.

    Args:
        path: the file, which must not exist.
        data: folder written by `satmip prepare`, with a split "train".

    Returns:
        Lines for the user: what was chosen, and the command that trains.

    Raises:
        ConfigError: the file exists or cannot be written, or the data are too few.
        ShardError: the folder holds no prepared data.

    Example:
        >>> from satmip_jax.config.template import write_config
        >>> lines = write_config(Path("mine.py"), str(shards))
        >>> lines[-1]
        'satmip train --config mine.py --workdir runs/mine'
    """
    if path.exists():
        raise ConfigError(f"{path} exists: choose another name, or delete it first")
    dataset = ShardDataset(data, "train")
    folder = data if is_remote(data) else str(Path(data).resolve())
    constants = choose(dataset.schema, len(dataset)) | {"DATA": folder}
    text = (config_folder() / TEMPLATE).read_text(encoding="utf-8")
    for name, value in constants.items():
        literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        literal = f"{value:_}" if type(value) is int else literal
        match = re.search(rf"^{name} = (\"[^\"]*\"|\w+)", text, re.MULTILINE)
        assert match is not None, name
        text = text[: match.start(1)] + literal + text[match.end(1) :]
    counts = known_fields(dataset.schema).items()
    known = "".join(f"#   {name}: {n:,}\n" for name, n in counts) or "#   no field\n"
    header = f"# {len(dataset):,} images of {dataset.schema.image_size} px in train; they know\n"
    text = text.replace("\nDATA = ", f"\n{header}{known}DATA = ", 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
    load_config(str(path))
    note = small_batch_note(constants["BATCH_SIZE"], len(dataset))
    return [
        f"{path}: {constants['METHOD']}, fields {constants['FIELDS']}, views of "
        f"{constants['IMAGE_SIZE']} px, batches of {constants['BATCH_SIZE']:,}, "
        f"{constants['IMAGES']:,} images",
        *([f"note: {note}"] if note else []),
        f"satmip train --config {path} --workdir runs/{path.stem}",
    ]


def choose(schema: Schema, examples: int) -> dict[str, Any]:
    """Choose the constants of the template.

    Args:
        schema: of the data.
        examples: images in the train split.

    Raises:
        ConfigError: fewer than 2 images.
    """
    if examples < 2:
        raise ConfigError(f"{examples} image in train: a contrastive loss needs at least 2")
    patch = 4 if schema.image_size <= 32 else 8 if schema.image_size <= 96 else 16
    patch = min(patch, schema.image_size)
    size = min(schema.image_size, 224) // patch * patch
    # a power of 2, for any usual number of devices; at least 4 batches per epoch
    batch_size = 2
    while batch_size * 8 <= examples and batch_size < 128:
        batch_size *= 2
    images = max(batch_size, min(CPU_IMAGES, EPOCHS * examples))
    steps = -(-images // batch_size)
    fields = known_fields(schema)
    scored = bool(schema.classes) and bool(schema.splits.get("val"))
    return {
        "METHOD": "satmips" if fields else "simclr",
        "FIELDS": "+".join(fields) or "all",
        "IMAGE_SIZE": size,
        "PATCH": patch,
        "IN_MEMORY": examples * schema.image_size**2 * 3 <= IN_MEMORY_BYTES,
        "BATCH_SIZE": batch_size,
        "IMAGES": images,
        "EVAL_EVERY": max(1, steps // SCORES) if scored else 0,
    }
