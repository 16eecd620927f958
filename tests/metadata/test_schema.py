"""Schemas: round trips, and invalid files."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.metadata import schema as schema_module
from satmip_jax.metadata import tabular
from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.fields import FIELDS, FieldError, field
from satmip_jax.metadata.schema import Schema, SchemaError
from tests.metadata.records import RECORDS, SCHEMA, make_schema


def test_schema_round_trip(tmp_path):
    path = tmp_path / "schema.json"
    SCHEMA.save(path)
    assert Schema.load(path) == SCHEMA
    assert Schema.load(str(path)).fields["gsd"] == SCHEMA.fields["gsd"]
    assert hash(Schema.load(path)) == hash(SCHEMA)
    assert [p.name for p in tmp_path.iterdir()] == ["schema.json"]


def test_class_weights_round_trip_and_are_left_out_when_empty(tmp_path):
    schema = make_schema(RECORDS, class_weights={"challenge_f1": (0.6, 1.4)})
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == schema
    assert "class_weights" not in SCHEMA.to_json()
    assert SCHEMA.class_weights == {}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], "class_weights: list should be an object"),
        ({"": [1.0, 1.0]}, "class_weights.'': '' should be 1 to 256"),
        ({"f1": [1.0]}, "class_weights.f1: list should be a list of 2 numbers"),
        ({"f1": [1.0, -0.1]}, "class_weights.f1: -0.1 should be a number from 0"),
        ({"f1": [1.0, math.inf]}, "class_weights.f1: inf should be a number from 0"),
        ({"f1": [1.0, math.nan]}, "class_weights.f1: nan should be a number from 0"),
        ({f"f{i}": [1.0, 1.0] for i in range(65)}, "class_weights: 65 metrics; at most 64"),
    ],
)
def test_bad_class_weights_are_refused(weights, message):
    with pytest.raises(SchemaError, match=rf"^schema: {message}"):
        Schema.from_json({**SCHEMA.to_json(), "class_weights": weights})


def test_an_unlisted_field_counts_as_never_present():
    data = SCHEMA.to_json()
    del data["fields"]["gsd"], data["fields"]["utm_zone"]
    schema = Schema.from_json(data)
    assert schema.fields["gsd"] == FieldStats.never_present(field("gsd").kind.n_standardized)
    assert not tabular.encode(RECORDS, schema)["present"][:, 5].any()


def test_models_keep_to_the_fields_that_their_schema_lists():
    """What "all" or a group means does not change when a field is added."""
    assert SCHEMA.unlisted == frozenset()
    assert SCHEMA.select_fields("all") == FIELDS
    data = SCHEMA.to_json()
    del data["fields"]["gsd"], data["fields"]["utm_zone"]
    old = Schema.from_json(data)
    assert old.unlisted == {"gsd", "utm_zone"}
    assert old.to_json() == data
    assert Schema.from_json(old.to_json()) == old
    assert len(old.select_fields("all")) == 13
    assert [f.name for f in old.select_fields("Location")] == ["location", "country_code"]
    with pytest.raises(FieldError, match=r"'gsd' leaves no field: the data set 'test' .* gsd, utm"):
        old.select_fields("gsd")


def test_saving_an_invalid_schema_fails_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "schema.json"
    SCHEMA.save(path)
    for bad in (
        {"image_std": (0.1, 0.0, 0.1)},
        {"classes": ("a", "a")},
        {"provenance": {"x": math.nan}},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 (two classes of errors)
            make_schema(RECORDS, **bad).save(path)
    assert Schema.load(path) == SCHEMA


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 2, "format: 2 should be a whole number from 1 to 1"),
        (("name",), "", "name: '' should be 1 to 256 printable"),
        (("name",), 5, "name: 5 should be"),
        (("image_size",), 10**9, "image_size: 1000000000 should be a whole number"),
        (("image_size",), True, "image_size: True"),
        (("classes",), "airport", "classes: 'airport' should be a list"),
        (("classes",), ["a", 3], "classes: 3 should be"),
        (("classes",), ["a", None], "classes: '' should be"),
        (("classes",), ["a", "a"], "classes: holds a name twice"),
        (("classes",), ["a\x1b[2J"], r"classes: 'a\\x1b\[2J' should be"),
        (("classes",), ["a"] * 100_001, "classes: list should be a list of at most 100000"),
        (("image_mean",), [0.4, 0.4], "image_mean: list should be a list of 3 numbers"),
        (("image_mean",), [0.4, 0.4, 120.0], "image_mean: 120.0 should be a number from 0 to 1"),
        (("image_std",), [0.1, 0.1, 0.0], "image_std: .* must be above zero"),
        (("fields",), [], "fields: list should be an object"),
        (("fields", "colour"), {}, "fields.colour: no such metadata field"),
        (("fields", "gsd", "std"), [0.0, 1.0], "fields.gsd.std: 0.0 should be a number"),
        (("fields", "gsd", "std"), [1.0], "fields.gsd.std: list should be a list of 2"),
        (("fields", "gsd", "mean"), [math.nan, 1.0], "fields.gsd.mean: nan should be a number"),
        (("fields", "gsd", "mean"), ["1", 1.0], "fields.gsd.mean: '1' should be a number"),
        (("fields", "gsd", "count"), -1, "fields.gsd.count: -1 should be a whole number"),
        (("fields", "gsd", "vocabulary"), ["a"], "fields.gsd.vocabulary: should be empty"),
        (
            ("fields", "utm_zone", "vocabulary"),
            ["b", "a"],
            "fields.utm_zone.vocabulary: should be sorted",
        ),
        (
            ("fields", "utm_zone", "vocabulary"),
            ["x" * 65],
            "fields.utm_zone.vocabulary: 'xxx.*should be 1 to 64",
        ),
        (("splits",), {"train": 1.5}, "splits.train: 1.5 should be a whole number"),
        (("splits",), {"": 1}, "splits.'': '' should be 1 to 256"),
        (("provenance",), "here", "provenance: 'here' should be an object"),
    ],
)
def test_errors_name_file_key_and_value(path, value, message):
    data = copy.deepcopy(SCHEMA.to_json())
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises(SchemaError, match=rf"^some/schema\.json: {message}"):
        Schema.from_json(data, "some/schema.json")


@pytest.mark.parametrize("key", list(SCHEMA.to_json()))
def test_a_missing_key_is_named(key):
    data = SCHEMA.to_json()
    del data[key]
    with pytest.raises(SchemaError, match=f"schema: {key}: is missing"):
        Schema.from_json(data)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"name": NaN}', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 10_000],
    ids=lambda c: repr(c[:8]),
)
def test_files_that_are_not_schemas_are_refused(tmp_path, content):
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=r"schema\.json(: | is not JSON)"):
        Schema.load(path)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "schema.json"
    with path.open("wb") as file:
        file.truncate(schema_module.MAX_SCHEMA_BYTES + 1)  # sparse
    with pytest.raises(SchemaError, match="bytes, more than the limit"):
        Schema.load(path)
    with pytest.raises(FileNotFoundError):
        Schema.load(tmp_path / "none.json")


def leaves(node, path=()):
    yield path
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            yield from leaves(child, (*path, key))


SMALL = make_schema(RECORDS[:5]).to_json()
PATHS = [p for p in leaves(SMALL) if p]
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), value=junk)
def test_arbitrary_values_are_refused_or_harmless(path, value):
    data = copy.deepcopy(SMALL)
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    try:
        schema = Schema.from_json(data)
    except SchemaError:
        return
    tabular.encode(RECORDS[:3], schema)
    again = Schema.from_json(schema.to_json())
    assert again.fields == schema.fields
    assert again.classes == schema.classes
    assert all(s > 0 and math.isfinite(s) for v in schema.fields.values() for s in v.std)
