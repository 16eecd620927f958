"""The world of the synthetic data set: what is where, who looks at it when, and how it looks.

`layouts` builds places out of shapes, `visits` draws what a satellite's record of one says, and
`render` paints the place as the record has it. `sources.synthetic` writes the files.
"""
