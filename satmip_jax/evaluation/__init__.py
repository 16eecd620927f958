"""Evaluation: features of a data set, and how well they classify it."""
