"""Orbax checkpoints with config and schema; every leaf is checked after it is written."""
