"""Models that come with this package, as folders written by `satmip export`.

A new one is its folder here and one line in `MODELS`.
"""

from __future__ import annotations

import shutil
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


def copy_examples(folder: Path) -> list[Path]:
    """Copy the example images and their licence to a folder; return the images.

    Args:
        folder: new or existing; files of the same names are replaced.

    Example:
        >>> from satmip_jax import pretrained
        >>> len(pretrained.copy_examples(Path("chips")))
        20
    """
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    return sorted(folder / file.name for file in EXAMPLES.glob("*.tif"))
