"""A training on fields that no image knows is refused; the fields of a training are counted."""

import pytest

from satmip_jax.config.conversion import vary
from satmip_jax.config.defaults import default_config
from satmip_jax.config.fields import check_fields, describe_fields
from satmip_jax.errors import ConfigError
from tests.config.schemas import with_counts


def config(method, fields):
    return vary(default_config(), {"method.name": method, "metadata.fields": fields})


@pytest.mark.parametrize("method", ["satmip", "satmips", "metapred"])
def test_fields_that_no_image_knows_are_refused(tiny_shards, method):
    schema = with_counts(tiny_shards.schema, location=1234)
    check_fields(config(method, "Time+Location"), schema, "'train' in data")
    with pytest.raises(ConfigError) as caught:
        check_fields(config(method, "Time"), schema, "'train' in data")
    assert str(caught.value) == (
        "config.metadata.fields is 'Time' (timestamp), and no image of 'train' in data knows any "
        "of these; the data know location (1,234 images)"
    )
    with pytest.raises(ConfigError, match="the data have no metadata"):
        check_fields(config(method, "all"), with_counts(schema), "'train' in data")


def test_where_counts_say_nothing_nothing_is_refused(tiny_shards):
    schema = with_counts(tiny_shards.schema, location=1234)
    check_fields(config("simclr", "Time"), schema, "'train' in data")
    foreign = with_counts(schema, provenance={"statistics": "data/other"})
    check_fields(config("satmip", "Time"), foreign, "'train' in data")
    line = describe_fields(config("satmip", "Time"), foreign, 10)
    assert line.endswith("as counted in data/other")


def test_a_training_counts_its_fields(tiny_shards):
    schema = with_counts(tiny_shards.schema, location=2000, timestamp=1234, gsd=7)
    assert describe_fields(config("satmips", "Time+Location"), schema, 2000) == (
        "metadata fields: timestamp 1,234, location all, utm_zone none, country_code none of 2,000 "
        "images; known and not used: gsd"
    )
    assert describe_fields(config("simclr", "all"), schema, 2000) == ""
