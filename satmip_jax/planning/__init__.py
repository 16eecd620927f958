"""Dry runs: the time, memory and communication that a training needs, before it starts."""
