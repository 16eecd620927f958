"""Cells that mean something else than they say: missing words, Namibia, decimal commas."""

import json
from collections import Counter
from pathlib import Path

import pytest

from satmip_jax.sources.folder import Folder
from tests.sources.pictures import read_all, write_csv, write_images

WORDS = ("nan", "None", "NULL", "null", "N/A", "n/a", "-", "<NA>", "NaN", "NaT", "NA")
WORDS += ("n.a.", "(null)", "\\N", "#VALUE!", "#DIV/0!", "-1.#IND")


def make(tmp_path: Path, column: str, cells, others=()) -> Folder:
    """Return a source of one image per cell."""
    names = [f"{i}.png" for i in range(len(cells))]
    root = write_images(tmp_path / "images", names)
    rows = [{"path": n, **dict(others), column: c} for n, c in zip(names, cells, strict=True)]
    return Folder([root], write_csv(tmp_path / "t.csv", rows))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_missing_words_are_neither_classes_nor_categories(suffix, tmp_path):
    names = [f"{i}.png" for i in range(len(WORDS) + 1)]
    root = write_images(tmp_path / "images", names)
    rows = [
        {"path": name, "label": word, "sensor_platform": word, "cloud_cover": word}
        for name, word in zip(names, (*WORDS, "barn"), strict=True)
    ]
    table = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        write_csv(table, rows)
    else:
        table.write_text("\n".join(map(json.dumps, rows)))
    source = Folder([root], table)
    found, problems = read_all(source)
    assert source.classes == ("barn",)
    assert Counter(example.label for example in found.values()) == {None: len(WORDS), "barn": 1}
    assert problems.to_json()["sensor_platform"] == {"missing": len(WORDS)}
    assert problems.to_json()["cloud_cover"] == {"missing": len(WORDS), "wrong type": 1}
    (notice,) = [line for line in source.summary if line.startswith("label: ")]
    assert all(f"1 x {word!r}" in notice for word in WORDS)
    assert notice.endswith("read as missing")


def test_similar_words_are_classes(tmp_path):
    source = make(tmp_path, "label", ["none", "Nan", "N", "na", "--", "Nantes"])
    assert len(source.classes) == 6
    assert len(source.summary) == 3  # no notice


@pytest.mark.parametrize(
    ("cells", "codes", "notice"),
    [
        (["NA", "DE", "NA"], ["NAM", "DEU", "NAM"], "2 x 'NA' read as Namibia"),
        (["NA", "DEU", "nan"], [None, "DEU", None], "1 x 'nan', 1 x 'NA' read as missing"),
        (["NA", "nan", "FR"], ["NAM", None, "FRA"], "1 x 'NA' read as Namibia"),
    ],
)
def test_namibia_where_no_row_has_three_letters(cells, codes, notice, tmp_path):
    source = make(tmp_path, "country_code", cells)
    found, _ = read_all(source)
    values = [found[f"{i}.png"].metadata.values.get("country_code") for i in range(3)]
    assert values == codes
    assert any(notice in line for line in source.summary)


@pytest.mark.parametrize(
    ("delimiter", "cells", "values"),
    [
        (";", ["0,5", "1,25", "2"], [0.5, 1.25, 2.0]),
        (";", ["0,5", "", "nan"], [0.5, None, None]),
        (";", ["1,500", "2,250", "3,125"], [1.5, 2.25, 3.125]),
        ("\t", ["0,5", "1,25", "-2,5"], [0.5, 1.25, None]),  # below zero: out of range
        (";", ["0,5", "1.25", "2"], [None, 1.25, 2.0]),  # some have points
        (";", ["1.000,5", "2,5", "2"], [None, None, 2.0]),
        (",", ["0,5", "1,25", "2,5"], [None, None, None]),  # thousands, perhaps
    ],
)
def test_decimal_commas_where_every_number_has_them(delimiter, cells, values, tmp_path):
    root = write_images(tmp_path / "images", [f"{i}.png" for i in range(3)])
    lines = [f"path{delimiter}multispectral_gsd"]
    lines += [f'{i}.png{delimiter}"{cell}"' for i, cell in enumerate(cells)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    source = Folder([root], tmp_path / "t.csv")
    found, problems = read_all(source)
    got = [found[f"{i}.png"].metadata.numbers("multispectral_gsd") for i in range(3)]
    assert got == [None if value is None else (value,) for value in values]
    read = values[0] is not None
    assert any("decimal commas read" in line for line in source.summary) == read
    assert any("write decimal points" in line for line in source.summary) == (not read)
    assert problems.count("multispectral_gsd", "wrong type") == (0 if read else values.count(None))


def test_texts_with_commas_in_json(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "b.png"])

    def read(*cells):
        rows = [{"path": p, "gsd": c} for p, c in zip(("a.png", "b.png"), cells, strict=True)]
        (tmp_path / "t.json").write_text(json.dumps(rows))
        found, _ = read_all(Folder([root], tmp_path / "t.json"))
        return [found[p].metadata.numbers("gsd") for p in ("a.png", "b.png")]

    assert read("0,5", "1,25") == [(0.5, 0.5), (1.25, 1.25)]
    assert read("1,500", "2,000") == [None, None]  # thousands, perhaps


def test_labels_of_a_wrong_type_are_counted(tmp_path):
    names = [f"{i}.png" for i in range(5)]
    root = write_images(tmp_path / "images", names)
    labels = [{"a": 1}, ["barn"], "barn", 3, "\ud800"]
    rows = [{"path": n, "label": label} for n, label in zip(names, labels, strict=True)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Folder([root], tmp_path / "t.jsonl")
    assert source.classes == ("3", "barn")
    assert [ref.id for ref in source.refs()] == ["2.png", "3.png"]
    assert source.skipped["label of a wrong type"] == 3


def test_objects_are_no_categories(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    row = {"path": "a.png", "sensor_platform": {"name": "S2A"}, "country_code": ["DE"]}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    found, problems = read_all(Folder([root], tmp_path / "t.jsonl"))
    assert found["a.png"].metadata.values == {}
    assert problems.to_json()["sensor_platform"] == {"wrong type": 1}
    assert problems.to_json()["country_code"] == {"wrong type": 1}


def test_words_that_are_missing_in_fields_may_be_labels(tmp_path):
    words = ("none", "NONE", "nil", "Nan", "--", "?", ".")
    source = make(tmp_path, "label", words)
    assert source.classes == tuple(sorted(words))
    source = make(tmp_path, "sensor_platform", words)
    found, problems = read_all(source)
    assert problems.count("sensor_platform", "missing") == len(words)
    assert not any("sensor_platform" in example.metadata.values for example in found.values())


def test_labels_that_differ_in_case_are_reported(tmp_path):
    source = make(tmp_path, "label", ["TRUE", "true", "barn", "Wäld"])
    sentence = "labels that differ in case only are different classes: 'TRUE' and 'true'"
    assert sentence in source.summary
    assert not any("in case only" in line for line in make(tmp_path, "label", ["a", "b"]).summary)


def test_splits_in_any_case(tmp_path):
    source = make(tmp_path, "split", ["Train", "TRAIN", "train", "Val", "Test", "Extra", "extra"])
    found = [ref.split for ref in source.refs()]
    assert found == ["train", "train", "train", "val", "test", "Extra", "extra"]


def test_lists_of_lists_are_no_values(tmp_path):
    deep = "[" * 900 + "]" * 900  # Python 3.12 and later parse this, and more
    source = make(tmp_path, "location", ["[11.5, 48.1]"])
    rows = [f'{{"path": "{i}.png", "location": {cell}}}' for i, cell in enumerate([deep, "[1, 2]"])]
    write_images(tmp_path / "images", ["0.png", "1.png"])
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    source = Folder([tmp_path / "images"], tmp_path / "t.jsonl")
    found, _ = read_all(source)
    assert [example.metadata.values for example in found.values()] == [{}, {"location": (1.0, 2.0)}]
