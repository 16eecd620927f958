"""A table of the models that come with this package, for `satmip models`."""

from __future__ import annotations

from rich.table import Table

from satmip_jax import pretrained
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.evaluation.loading import CONFIG_FILE, read_export_config
from satmip_jax.metadata.schema import Schema


def shipped_models() -> Table:
    """Return one row per model: name, origin, method, encoder, images, fields and size.

    Example:
        >>> from satmip_jax.inference.shipped import shipped_models
        >>> list(shipped_models().columns[0].cells)
        ['eurosat-satmips']
    """
    table = Table()
    for heading in ("name", "model", "images", "metadata", "size"):
        table.add_column(heading)
    for name, title in pretrained.MODELS.items():
        folder = pretrained.folder(name)
        _, config = read_export_config(folder / CONFIG_FILE)
        fields = Schema.load(folder / SCHEMA_FILE).seen_fields(config.metadata.fields)
        size = sum(file.stat().st_size for file in folder.iterdir())
        table.add_row(
            name,
            f"{title}; {config.image.encoder}",
            f"{config.image.size} px, RGB",
            ", ".join(field.name for field in fields),
            f"{size / 1e6:.1f} MB",
        )
    return table
