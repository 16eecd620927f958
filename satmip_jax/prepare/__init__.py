"""Sources to shards: crop, resize, encode, and a report of everything that was bad."""
