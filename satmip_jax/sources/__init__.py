"""Data sets as they lie on disk: a source is one file in this folder and one line in `SOURCES`.

A source lists its examples (`refs`, cheap, in a fixed order) and reads them one at a time
(`read`). It parses metadata but never decodes pixels: that is left to `satmip_jax.data.images`.
Nothing heavy is imported here, so that the command can name the sources at once.
"""
