"""Kinds of metadata values: how each is read, stored, standardized, encoded and predicted.

A new kind is one subclass of `Kind`; `fields.FIELDS` uses it.
"""

from satmip_jax.metadata.kinds.base import MAX_TEXT, BadValueError, Kind, Value
from satmip_jax.metadata.kinds.category import Category
from satmip_jax.metadata.kinds.location import Location
from satmip_jax.metadata.kinds.numeric import Angle, Numeric
from satmip_jax.metadata.kinds.timestamp import Timestamp

__all__ = [
    "MAX_TEXT",
    "Angle",
    "BadValueError",
    "Category",
    "Kind",
    "Location",
    "Numeric",
    "Timestamp",
    "Value",
]
