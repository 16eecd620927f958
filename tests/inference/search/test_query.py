"""The grammar of `satmip search --where`."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from satmip_jax.inference.search import query as search_query
from satmip_jax.inference.search.query import NAMES, OPERATORS, PARTS, QueryError, Term, parse
from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.runtime.files import FileContentError


def one(text):
    (term,) = parse([text])
    return term.name, term.operator, term.value


def test_terms_are_read():
    assert one("month=7") == ("month", "=", 7.0)
    assert one("  gsd == 0.5,0.25 ") == ("gsd", "==", (0.5, 0.25))
    assert one("gsd=10") == ("gsd", "=", (10.0, 10.0))
    assert one("sun_elevation<20") == ("sun_elevation_angle", "<", 20.0)
    assert one('sensor_platform != "World View 3"') == ("sensor_platform", "!=", "World View 3")
    assert one("country_code='FI'") == ("country_code", "=", "FIN")
    assert one("location=12.5,41.9") == ("location", "=", (12.5, 41.9))
    assert one("label=Forest") == ("label", "=", "Forest")
    midnight = datetime(2018, 7, 1, tzinfo=UTC)
    assert one("timestamp>=2018-07-01") == ("timestamp", ">=", midnight)
    assert one("gsd>0") == ("gsd", ">", 0.0)  # out of the valid range, and yet a sensible bound
    terms = parse(['month=7 latitude=60\tlabel!="a b"', '{"gsd": 10}'])
    assert [str(term) for term in terms] == ["month=7", "latitude=60", "label!=a b", "gsd=10,10"]


def test_json_describes_a_record(tmp_path):
    text = '{"location": [12.5, 41.9], "timestamp": "2018-07-01", "hour": 10}'
    file = tmp_path / "query.json"
    file.write_text(text)
    assert parse([text]) == parse([f"@{file}"])
    assert [term.operator for term in parse([text])] == ["="] * 3
    (file.parent / "terms").write_text("month=7\nlatitude=60\n")
    assert [term.name for term in parse([f"@{file.parent / 'terms'}"])] == ["month", "latitude"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("month", r"^month: expected a field, one of == != <= >= = < >, and a value .*longitude"),
        ("month=", r"^month=: expected a field"),
        ("60<latitude", r"^60<latitude: expected a field"),
        ("moon=1", r"^moon=1: moon is no field; the fields are gsd, .*, label$"),
        ("sun=1", r"^sun=1: sun is short for sun_azimuth_angle and sun_elevation_angle; the fie"),
        ("month=13", r"^month=13: expected a whole number from 1 to 12"),
        ("month=6.5", r"^month=6.5: expected a whole number"),
        ("latitude<x", r"^latitude<x: expected a number"),
        ("cloud_cover=140", r"^cloud_cover=140: the value is out of range \(percent\)"),
        ("country_code=Atlantis", r"^country_code=Atlantis: the value is unknown"),
        ("country_code<FIN", r"only =, == and != test"),
        ("label<a", r"only =, == and != test"),
        ("location<3,4", r"compare longitude or latitude instead"),
        ("timestamp=06/07/2017", r"an ambiguous date"),
        ('label="a" b', r"^b: expected a field"),
        ('{"gsd": 1', r"is no JSON"),
        ('{"label": 3}', r"a label is a text"),
        ('{"gsd": {"a": 1}}', r"of the wrong type"),
        ("gsd=1 " * 101, r"more than 100 terms"),
    ],
)
def test_errors_name_the_term(text, reason):
    with pytest.raises(QueryError, match=reason):
        parse([text])


def test_files_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"month=7 " + b"\xff")
    with pytest.raises(QueryError, match="is not UTF-8"):
        parse([f"@{tmp_path / 'a'}"])
    monkeypatch.setattr(search_query, "MAX_BYTES", 4)
    with pytest.raises(FileContentError, match="more than"):
        parse([f"@{tmp_path / 'a'}"])


pieces = st.sampled_from([*NAMES, *OPERATORS, *"=<>!\"',.-{}[]: \t", "1e999", "nan", "5", "٣"])


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=8).map("".join) | st.text(max_size=30))
@example("{" * 100_000)
@example('{"gsd": ' + "9" * 5000 + "}")
def test_any_text_is_read_or_refused_in_a_sentence(text):
    terms, message = [], ""
    try:
        terms = parse([text.lstrip("@")])
    except QueryError as error:
        message = str(error)
    assert len(message) < 1000
    assert message.isprintable()
    for term in terms:
        assert isinstance(term, Term)
        assert term.name in NAMES
        assert term.operator in OPERATORS


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 4))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from([f.name for f in FIELDS if f.kind.components == 1] + [*PARTS]),
    operator=st.sampled_from(["<", "<=", ">", ">="]),
    value=numbers,
    space=st.sampled_from(["", " ", "  "]),
)
def test_numbers_survive(name, operator, value, space):
    refused, terms = "", ()
    try:
        terms = parse([f"{name}{space}{operator}{space}{value}"])
    except QueryError as error:
        refused = str(error)
    if refused:
        assert name in refused
        assert name in PARTS or field(name).kind.stored_as_text
    else:
        (found,) = terms
        assert (found.name, found.operator, found.value) == (name, operator, value)


@given(values=st.dictionaries(st.sampled_from(["month", "latitude", "hour"]), st.integers(1, 9)))
def test_text_and_json_say_the_same(values):
    text = " ".join(f"{name}={value}" for name, value in values.items())
    as_json = "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"
    assert parse([text]) == parse([as_json])
