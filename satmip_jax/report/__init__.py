"""A self-contained HTML page on runs and studies: `page.write_report`.

Everything read from a folder (class names, captions, keys of metrics) is untrusted. It reaches the
page through the templates, which escape it, and never through the text of a figure.
"""
