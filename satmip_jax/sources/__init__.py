"""Readers of published data sets: one file per data set, and one line in `registry.SOURCES`.

A source lists its examples (`refs`, cheap, in a fixed order) and reads them one at a time
(`read`). It parses metadata but never decodes pixels: that is the task of `satmip_jax.data.images`.
`base` and `registry` import nothing heavy, so that the command line can list the sources at once.
"""
