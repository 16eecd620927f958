"""The metadata fields that a config chooses, and how many images of the data know each."""

from __future__ import annotations

from ml_collections import ConfigDict

from satmip_jax.errors import ConfigError
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives import build_method


def known_fields(schema: Schema) -> dict[str, int]:
    """Return the fields that images of the train split know, each with the number of images."""
    return {f.name: schema.fields[f.name].count for f in FIELDS if schema.fields[f.name].count}


def chosen_fields(config: ConfigDict, schema: Schema) -> dict[str, int]:
    """Return the fields that the method trains on, each with the number of images that know it.

    Empty if the method does not use metadata.

    Raises:
        FieldError: none of the fields is in the schema.
    """
    if build_method(config).metadata_view is None:
        return {}
    known = known_fields(schema)
    return {f.name: known.get(f.name, 0) for f in schema.select_fields(config.metadata.fields)}


def check_fields(config: ConfigDict, schema: Schema, where: str) -> None:
    """Refuse a training on fields that no image knows.

    Args:
        config: of the training.
        schema: of the data.
        where: the data, for the message.

    Raises:
        ConfigError: no image of the train split knows any of the fields.
    """
    chosen = chosen_fields(config, schema)
    if not chosen or any(chosen.values()) or not schema.has_own_counts:
        return
    known = ", ".join(f"{name} ({count:,} images)" for name, count in known_fields(schema).items())
    spec = config.metadata.fields
    names = "" if list(chosen) == [spec] else f" ({', '.join(chosen)})"
    raise ConfigError(
        f"config.metadata.fields is {spec!r}{names}, and no image of {where} knows any of these; "
        + (f"the data know {known}" if known else "the data have no metadata: train simclr")
    )


def describe_fields(config: ConfigDict, schema: Schema, examples: int) -> str:
    """Return a line on the fields of a training; "" if the method does not use metadata.

    Example:
        >>> from satmip_jax.config.fields import describe_fields
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> dataset = ShardDataset(shards, "train")
        >>> describe_fields(config, dataset.schema, len(dataset))
        'metadata fields: location ...'
    """
    chosen = chosen_fields(config, schema)
    if not chosen:
        return ""
    counts = [
        f"{name} {'none' if not count else 'all' if count >= examples else f'{count:,}'}"
        for name, count in chosen.items()
    ]
    unused = [name for name in known_fields(schema) if name not in chosen]
    line = f"metadata fields: {', '.join(counts)} of {examples:,} images"
    if not schema.has_own_counts:
        line += f", as counted in {schema.provenance['statistics']}"
    return line + (f"; known and not used: {', '.join(unused)}" if unused else "")
