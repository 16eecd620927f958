"""Schemas whose images know chosen fields."""

from dataclasses import replace


def with_counts(schema, **options):
    """Return a schema whose fields have these counts, and none otherwise.

    Other options are attributes of the schema.
    """
    fields = {
        name: replace(stats, count=options.pop(name, 0)) for name, stats in schema.fields.items()
    }
    return replace(schema, fields=fields, **options)
