"""Dry runs: what a training needs before it is started."""
