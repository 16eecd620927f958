"""Shards to batches: the path of a record from an ArrayRecord file to the devices."""
