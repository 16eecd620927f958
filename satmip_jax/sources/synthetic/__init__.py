"""The synthetic data set: scenes whose pixels depend on their metadata.

`layouts` builds places out of shapes, `visits` draws the metadata of satellite passes over them,
and `render` paints a place according to its metadata. `dataset` writes the files.
"""
