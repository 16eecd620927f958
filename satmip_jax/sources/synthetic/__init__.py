"""The synthetic data set: scenes whose pixels depend on their metadata.

`layouts` builds places out of shapes, `visits` draws what a satellite's record of one says, and
`render` paints the place as the record has it. `dataset` writes the files.
"""
