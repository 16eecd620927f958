"""Search in a file of embeddings, against naive formulas."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import satmip_jax as sm
from satmip_jax.inference.embed import table as embedding_table
from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.inference.embed.writer import Row, to_table, write_table
from satmip_jax.inference.embedding import EmbeddingModel
from satmip_jax.inference.search import ranking
from satmip_jax.inference.search.query import QueryError, parse
from satmip_jax.inference.search.ranking import Standardization, best_rows, image_scores
from satmip_jax.inference.search.record import records
from satmip_jax.inference.search.row_filter import passing_rows
from satmip_jax.inference.search.run import search
from satmip_jax.metadata.record import Metadata

RNG = np.random.default_rng(5)
INFO = {"version": "1", "model": "m", "step": 1, "parameters": "", "image_size": 8}
INFO |= {"fields": [], "rendering": {}, "inputs": {}}


def write(path, images, values=None, labels=None):
    """A file of rows r0, r1, ... without metadata vectors."""
    n = len(images)
    values = [Metadata.parse(raw).values for raw in values or [{}] * n]
    labels = labels or [None] * n
    rows = [
        Row(f"r{i}", f"r{i}.jpg", label=label, values=record)
        for i, (record, label) in enumerate(zip(values, labels, strict=True))
    ]
    write_table(path, [to_table(rows, np.asarray(images, np.float32))], INFO)
    return EmbeddingTable.open(path)


def standardized(x):
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def images():
    # features of unequal size around a large mean, as encoders have them
    return (RNG.normal(size=(500, 12)) * RNG.uniform(0.1, 9, 12) + 20).astype(np.float32)


@pytest.fixture(scope="module")
def table(images, tmp_path_factory):
    return write(tmp_path_factory.mktemp("t") / "e.parquet", images)


def test_rows_are_ranked_by_cosine_of_standardized_features(table, images, monkeypatch):
    unit = standardized(images.astype(np.float64))
    cosine = unit @ unit[7]
    expected = [row for row in np.argsort(-cosine) if row != 7][:25]
    for batch in (16_384, 100):  # the file is read in batches
        monkeypatch.setattr(ranking, "ROWS", batch)
        monkeypatch.setattr(embedding_table, "ROWS", batch)
        results = search(table, ids=["r7"], count=25)
        assert [hit.row for hit in results.hits] == expected
        np.testing.assert_allclose([hit.score for hit in results.hits], cosine[expected], atol=1e-5)
    assert [hit.values["id"] for hit in results.hits] == [f"r{row}" for row in expected]


def test_several_rows_stand_for_their_mean_direction(table, images):
    unit = standardized(images.astype(np.float64))
    direction = unit[[3, 9, 40]].mean(axis=0)
    cosine = unit @ (direction / np.linalg.norm(direction))
    expected = [row for row in np.argsort(-cosine) if row not in (3, 9, 40)][:10]
    assert [hit.row for hit in search(table, ids=["r3", "r9", "r40"]).hits] == expected


def test_statistics_of_batches_are_those_of_all_rows(tmp_path, images):
    several = [
        to_table([Row(f"{i}-{j}", "x") for j in range(125)], images[125 * i :][:125])
        for i in range(4)
    ]
    write_table(tmp_path / "e.parquet", several, INFO)
    found = Standardization.of(EmbeddingTable.open(tmp_path / "e.parquet"))
    np.testing.assert_allclose(found.mean, images.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.deviation, images.std(axis=0, dtype=np.float64), rtol=1e-5)


def test_vectors_that_are_not_finite_and_constant_features_do_no_harm(tmp_path, images):
    rows = images[:50].copy()
    rows[3, 2], rows[4, 0] = np.nan, np.inf
    rows[:, 5] = 7.25
    results = search(write(tmp_path / "e.parquet", rows), ids=["r0"], count=100)
    assert results.unusable == 2
    assert sorted(hit.row for hit in results.hits) == sorted({*range(50)} - {0, 3, 4})
    good = np.delete(rows, [3, 4], axis=0).astype(np.float64)
    unit = standardized(np.delete(good, 5, axis=1))
    scores = {hit.row: hit.score for hit in results.hits}
    np.testing.assert_allclose([scores[i] for i in (1, 2)], unit[1:3] @ unit[0], atol=1e-5)
    with pytest.raises(QueryError, match="not finite"):
        search(results.table, ids=["r3"])


@given(
    scores=st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0, float("nan")]), max_size=12),
    count=st.integers(1, 14),
)
def test_best_rows_are_those_of_a_stable_sort(scores, count):
    x = np.array(scores, np.float32)
    allowed = np.arange(len(x)) % 3 != 1
    expected = sorted(
        (i for i in range(len(x)) if allowed[i] and x[i] == x[i]), key=lambda i: -x[i]
    )
    assert best_rows(x, allowed, count).tolist() == expected[:count]


# --- filters --------------------------------------------------------------------------------------

STATED = [
    {"timestamp": "2018-07-01", "location": [12.5, 41.9], "gsd": [0.5, 0.25], "cloud_cover": 0.1},
    {"timestamp": "2018-06-30T23:59:59.999999Z", "location": [-180, 60], "gsd": 10},
    {"timestamp": "2020-02-29T12:30:00Z", "sensor_platform": "A B", "country_code": "FIN"},
    {"cloud_cover": 50, "country_code": "SWE", "sun_elevation_angle": 19.5},
    {},
]


@pytest.fixture(scope="module")
def stated(tmp_path_factory):
    path = tmp_path_factory.mktemp("f") / "e.parquet"
    return write(path, RNG.normal(size=(5, 3)), STATED, ["a", "b", "a", None, "b"])


@pytest.mark.parametrize(
    ("where", "rows", "lacking"),
    [
        ("month==7", [0], 2),
        ("month!=7", [1, 2], 2),  # rows that lack it do not pass either
        ("year>2018", [2], 2),
        ("day=29", [2], 2),
        ("hour>=12.5", [1, 2], 2),
        ("timestamp>=2018-07-01", [0, 2], 2),
        ("timestamp<2018-07-01", [1], 2),
        ("timestamp==2020-02-29T13:30:00+01:00", [2], 2),
        ("timestamp!=2018-07-01", [1, 2], 2),
        ("latitude>=60", [1], 3),
        ("longitude<0", [1], 3),
        ("location==12.5,41.9", [0], 3),
        ("gsd<0.6", [0], 3),
        ("gsd<0.4", [], 3),  # both axes have to pass
        ("gsd==10", [1], 3),
        ("cloud_cover==0.1", [0], 3),
        ("sun_elevation<20", [3], 4),
        ("sensor_platform=='A B'", [2], 4),
        ("country_code!=FIN", [3], 3),
        ("label!=a", [1, 4], 1),
        ("label==a month==7", [0], None),
    ],
)
def test_rows_pass_by_what_they_state(stated, where, rows, lacking):
    terms = parse([where])
    mask, counts = passing_rows(stated, terms)
    assert np.flatnonzero(mask).tolist() == rows
    if lacking is not None:
        assert counts == {str(terms[0]): lacking}


def test_a_field_that_no_row_states_is_an_error(table):
    with pytest.raises(QueryError, match=r"month==7: no row of .* states timestamp; it has"):
        search(table, ids=["r1"], where="month==7")


@settings(max_examples=60, deadline=None)
@given(
    moments=st.lists(
        st.none() | st.datetimes(datetime(1957, 1, 1), datetime(2100, 12, 31)),
        min_size=1,
        max_size=6,
    ),
    seconds=st.sampled_from([0, 1e-6, -1e-6, 1]),
)
def test_times_compare_to_the_microsecond(tmp_path_factory, moments, seconds):
    path = tmp_path_factory.mktemp("times") / "e.parquet"
    rows = [{} if m is None else {"timestamp": m} for m in moments]
    table = write(path, np.eye(len(rows), 3), [{"timestamp": "2000-01-01"}, *rows][1:])
    pivot = next((m for m in moments if m), None)
    if pivot is None or table.column("timestamp").null_count == len(rows):
        return
    pivot += timedelta(seconds=seconds)
    if not 1957 <= pivot.year <= 2100:
        return
    for sign, test in {"<": lambda m: m < pivot, ">=": lambda m: m >= pivot}.items():
        mask, _ = passing_rows(table, parse([f"timestamp{sign}{pivot.isoformat()}"]))
        assert mask.tolist() == [m is not None and test(m) for m in moments]


# --- descriptions ---------------------------------------------------------------------------------


def test_open_parts_are_completed_by_rows(stated):
    everywhere = np.ones(5, bool)
    found = records({"timestamp": {"month": 2.0, "hour": 6.5}}, stated, everywhere)
    expected = [(2018, 2, 1), (2018, 2, 28), (2020, 2, 29)]
    assert [r["timestamp"] for r in found] == [
        datetime(*day, 6, 30, tzinfo=UTC) for day in expected
    ]
    found = records(
        {"location": {"latitude": 60.0}, "gsd": {"gsd": (1.0, 1.0)}}, stated, everywhere
    )
    assert found == [
        {"gsd": (1.0, 1.0), "location": (12.5, 60.0)},
        {"gsd": (1.0, 1.0), "location": (-180.0, 60.0)},
    ]
    both = {"location": {"longitude": 190.0, "latitude": 60.0}}
    assert records(both, stated, everywhere) == [{"location": (-170.0, 60.0)}]
    with pytest.raises(QueryError, match=r"month describes only a part of the time"):
        records({"timestamp": {"month": 7.0}}, stated, np.arange(5) > 2)


def test_metadata_rank_by_the_joint_space(tiny_run, tiny_embeddings):
    model, table = sm.load(tiny_run), EmbeddingTable.open(tiny_embeddings)
    where = '{"location": [12.5, 41.9], "country_code": "IT"}'
    record = {"location": [12.5, 41.9], "country_code": "ITA"}
    expected = model.similarity(table.images(), [record])[:, 0]
    results = search(table, model=model, where=where, count=24)
    assert [hit.row for hit in results.hits] == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose(
        [hit.score for hit in results.hits], np.sort(expected)[::-1], atol=1e-6
    )
    # a parallel: the mean of its records at the longitudes of the rows that pass
    all_places = [row["location"] for row in table.rows(range(24)) if row["location"]]
    images = model.joint_space.images(table.images())
    for where, places in {
        "latitude=60": all_places,
        "latitude=60 longitude>0": [place for place in all_places if place[0] > 0],
    }.items():
        results = search(table, model=model, where=where, count=24)
        assert len(results.hits) in (24, len(places))
        found = model.embed_metadata([{"location": (x, 60.0)} for x, _ in places])
        direction = model.joint_space.metadata(found).mean(axis=0)
        cosine = (images @ (direction / np.linalg.norm(direction)))[[h.row for h in results.hits]]
        np.testing.assert_allclose([h.score for h in results.hits], cosine, atol=1e-5)
    assert 0 < len(places) < len(all_places)


def test_images_and_metadata_have_the_same_say(tiny_run, tiny_embeddings):
    model, table = sm.load(tiny_run), EmbeddingTable.open(tiny_embeddings)
    image = tiny_embeddings.parent / "scene-5.jpg"
    by_image = search(table, model=model, images=image, count=24)
    assert (by_image.hits[0].row, round(by_image.hits[0].score, 4)) == (5, 1.0)
    both = search(table, model=model, images=image, where="location=9,5 latitude>-90", count=24)
    assert (len(both.sought), list(both.filters)) == (1, ["latitude>-90"])
    rows = [hit.row for hit in both.hits]
    assert len(rows) == both.passed
    a, b = (np.array([getattr(hit, kind) for hit in both.hits]) for kind in ("image", "metadata"))
    scores = ((a - a.mean()) / a.std() + (b - b.mean()) / b.std()) / 2
    np.testing.assert_allclose([hit.score for hit in both.hits], scores, atol=1e-4)
    assert (np.diff(scores) <= 1e-5).all()


def test_queries_that_cannot_be_answered(tiny_run, tiny_embeddings, table):
    model = sm.load(tiny_run)
    ask = {
        "images need the model that made": {"images": "a.jpg"},
        "nothing to rank by; give a row": {},
        "latitude>3 only filters rows: nothing to rank by": {"model": model, "where": "latitude>3"},
        "the query image missing.jpg: No such file": {"model": model, "images": "missing.jpg"},
        "has no row 'x': ids are such as 'scene-0'": {"ids": ["x"]},
        "0 rows to find": {"ids": ["scene-0"], "count": 0},
        "latitude=3: location is described twice": {
            "model": model,
            "where": "location=1,2 latitude=3",
        },
        "does not know the value; it saw 14R, 14S, ": {"model": model, "where": "utm_zone=1C"},
        "saw no gsd, only location, .*; nothing to rank by": {"model": model, "where": "gsd=1"},
    }
    for message, options in ask.items():
        with pytest.raises(QueryError, match=message):
            search(tiny_embeddings, **options)
    with pytest.raises(
        QueryError, match=r"by another model, .* not comparable: model 'm' instead of"
    ):
        search(table, model=model, where="location=1,1")


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_rows(tmp_path):
    """200,000 rows of 256 numbers are 205 MB; a search holds a batch of 17 MB and the scores."""
    import tracemalloc

    part = to_table(
        [Row(f"{i}", "x") for i in range(20_000)], RNG.normal(size=(20_000, 256)).astype(np.float32)
    )
    write_table(tmp_path / "e.parquet", [part] * 10, INFO)
    table = EmbeddingTable.open(tmp_path / "e.parquet")
    standardization = Standardization.of(table)
    query = standardization.directions(table.vectors("image", [5]))[0]
    image_scores(table, query, standardization)
    tracemalloc.start()
    scores = image_scores(table, query, standardization)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.flatnonzero(scores > 0.999).tolist() == [5 + 20_000 * i for i in range(10)]
    assert peak < 100e6


def test_query_images_are_read_like_those_of_the_file(tiny_run, tiny_embeddings, tmp_path):
    """Of 16 bits: the scale of the file makes 5,000 of them 127."""
    model = sm.load(tiny_run)
    values = RNG.integers(0, 10_000, (40, 40, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    pixels = np.clip(np.round(values[:, :, ::-1] / 10_000 * 255), 0, 255).astype(np.uint8)
    table = EmbeddingTable.open(tiny_embeddings)
    vectors = np.concatenate([table.images(), model.embed_images(pixels)])
    info = table.info | {"rendering": {"scale": [0, 10_000]}}
    rows = [Row(f"r{i}", "x") for i in range(len(vectors))]
    write_table(tmp_path / "e.parquet", [to_table(rows, vectors)], info)
    (hit,) = search(tmp_path / "e.parquet", model=model, images=tmp_path / "a.png", count=1).hits
    assert hit.values["id"] == f"r{len(vectors) - 1}"
    assert hit.score > 0.99
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(QueryError, match=r"the query image .*bad.png: "):
        search(tmp_path / "e.parquet", model=model, images=tmp_path / "bad.png")


def test_a_model_of_other_parameters_is_refused(tiny_run, tiny_embeddings):
    model = sm.load(tiny_run)
    params = jax.tree.map(lambda x: x * 1.001, model.model.params)
    other = EmbeddingModel(replace(model.model, params=params))
    with pytest.raises(QueryError, match="not comparable: parameters"):
        search(tiny_embeddings, model=other, where="location=1,1")
