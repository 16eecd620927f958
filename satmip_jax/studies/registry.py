"""The studies by name. A study is one file in this folder and one line in `STUDIES`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satmip_jax.studies.base import Study

# name -> "module:Study", imported on demand.
STUDIES: dict[str, str] = {
    "fields": "satmip_jax.studies.fields:STUDY",
    "convergence": "satmip_jax.studies.convergence:STUDY",
    "efficiency": "satmip_jax.studies.efficiency:STUDY",
    "encoders": "satmip_jax.studies.encoders:STUDY",
    "modalities": "satmip_jax.studies.modalities:STUDY",
    "batch-size": "satmip_jax.studies.batch_size:STUDY",
    "methods": "satmip_jax.studies.methods:STUDY",
}


def open_study(name: str) -> Study:
    """Import and return the study of that name.

    Raises:
        StudyError: there is no such study.

    Example:
        >>> from satmip_jax.studies.registry import open_study
        >>> open_study("methods").title
        'Comparison of methods'
    """
    from satmip_jax.studies.base import StudyError

    if name not in STUDIES:
        raise StudyError(f"unknown study {name!r}: choose one of {', '.join(STUDIES)}")
    module, _, attribute = STUDIES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
