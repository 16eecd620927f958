"""SatMIP in JAX: representations of satellite images learned from their metadata."""

__version__ = "0.1.0"
