"""One self-contained page on runs and studies: `page.write_report`.

Whatever comes from a folder (names of classes, captions, keys of metrics) may be a stranger's: it
reaches the page through the template, which escapes it, and never through a drawing's text.
"""
