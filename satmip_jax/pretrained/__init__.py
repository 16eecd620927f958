"""Models that come with this package, as folders written by `satmip export`.

A new one is its folder here and one line in `MODELS`.
"""

from __future__ import annotations

from pathlib import Path

# name -> where it comes from, for `satmip models`
MODELS: dict[str, str] = {
    "eurosat-satmips": "SatMIPS on 18,900 EuroSAT chips of Europe and their locations",
}

EXAMPLES = Path(__file__).parent / "examples"  # GeoTIFFs to try a model on, with their licence


def folder(name: str) -> Path:
    """Return the folder of a shipped model.

    Args:
        name: A key of `MODELS`.

    Example:
        >>> from satmip_jax import pretrained
        >>> sorted(path.name for path in pretrained.folder("eurosat-satmips").iterdir())[:2]
        ['README.md', 'config.json']
    """
    return Path(__file__).parent / name
