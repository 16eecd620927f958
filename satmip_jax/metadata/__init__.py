"""Metadata of images: fields, records, statistics, arrays and captions."""
