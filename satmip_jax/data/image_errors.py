"""The error of all modules that read image files."""

from __future__ import annotations

from satmip_jax.errors import SatmipError


class ImageError(SatmipError, ValueError):
    """An image file, or a box in it, that cannot be used; the message says why."""
