"""Conversion of sources to shards: crop, resize, encode, and a report of unusable data."""
