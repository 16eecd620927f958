"""Scores and their file."""

import dataclasses
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from satmip_jax.evaluation import results as module
from satmip_jax.evaluation.results import (
    ResultsError,
    Score,
    print_scores,
    read_scores,
    write_scores,
)
from satmip_jax.report.scores import scores
from satmip_jax.runtime import files

ROW = Score("eurosat", "val", "satmip vit", "image", "knn5", "accuracy", 0.8125, 4050)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def test_written_rows_are_read_back(tmp_path):
    path = tmp_path / "run" / "evaluation.json"
    rows = [ROW, dataclasses.replace(ROW, features="metadata", value=0.25)]
    assert write_scores(path, rows) == rows
    assert read_scores(path) == rows
    assert json.loads(path.read_text())[0] == dataclasses.asdict(ROW)
    assert [p.name for p in path.parent.iterdir()] == ["evaluation.json"]


def test_a_row_takes_the_place_of_the_one_with_its_key(tmp_path):
    path = tmp_path / "evaluation.json"
    other = dataclasses.replace(ROW, metric="macro_f1", value=0.7)
    write_scores(path, [ROW, other])
    better = dataclasses.replace(ROW, value=0.9, n=10)
    new = dataclasses.replace(ROW, protocol="knn20-weighted")
    assert write_scores(path, [better, new]) == [better, other, new]
    assert read_scores(path) == [better, other, new]


def test_a_file_keeps_data_and_checkpoints_apart(tmp_path, caplog):
    path = tmp_path / "evaluation.json"
    unknown = [ROW, dataclasses.replace(ROW, protocol="linear")]
    write_scores(path, unknown)
    old = [dataclasses.replace(row, data="a", step=4, planned=8) for row in unknown]
    colour = dataclasses.replace(ROW, model="colour", data="a")
    assert write_scores(path, [*old, colour]) == [*old, colour]
    assert "2 scores of unknown data and step are replaced" in caplog.text
    other = dataclasses.replace(old[0], data="b")
    assert write_scores(path, [other]) == [*old, colour, other]
    new = dataclasses.replace(old[0], step=8)
    assert write_scores(path, [new]) == [colour, other, new]
    assert "2 scores of an earlier or later checkpoint" in caplog.text
    assert "(step 4); the new ones are of step 8" in caplog.text
    assert read_scores(path) == [colour, other, new]
    tables = scores([("run", read_scores(path))]).tables
    assert [t.dataset for t in tables] == ["eurosat val (data a)", "eurosat val (data b)"]
    assert [line.model for line in tables[0].lines] == ["colour", "satmip vit, step 8"]
    assert [line.model for line in tables[1].lines] == ["satmip vit, step 4 of 8 (unfinished)"]


def test_files_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "evaluation.json"
    new = ("data", "step", "planned", "majority", "note")
    row = {name: value for name, value in dataclasses.asdict(ROW).items() if name not in new}
    path.write_text(json.dumps([row]))
    assert read_scores(path) == [ROW]


def test_the_majority_class_and_notes_stand_in_the_tables():
    note = "3 of 9 val images are of classes that train does not have ([b]y)"
    row = dataclasses.replace(ROW, majority=0.25, note=note, step=4, planned=8)
    blocked = dataclasses.replace(row, protocol="knn5 blocked 1deg", n=7, majority=0.125)
    console = Console(width=140, record=True, file=io.StringIO())
    print_scores([row, blocked], console)
    text = console.export_text()
    assert "model satmip vit, step 4 of 8 (unfinished)" in " ".join(text.split())
    assert text.rstrip().endswith(note)
    lines = [[cell.strip() for cell in s.split("│")[1:-1]] for s in text.splitlines()]
    assert [cells for cells in lines if "majority class" in cells] == [
        ["majority class", "", "4050", "25.0"],
        ["majority class", "blocked 1deg", "7", "12.5"],
    ]
    (table,) = scores([("run", [row, blocked])]).tables
    assert table.lines[-1].features == "majority class"
    assert [cell.value for cell in table.lines[-1].cells] == ["25.0", "12.5"]
    assert table.notes == [note]


def test_equally_many_examples_in_blocks_have_their_own_majority():
    row = dataclasses.replace(ROW, n=7, majority=0.25)
    blocked = dataclasses.replace(row, protocol="knn5 blocked 1deg", majority=0.125)
    console = Console(width=140, record=True, file=io.StringIO())
    print_scores([row, blocked], console)
    lines = [s for s in console.export_text().splitlines() if "majority class" in s]
    assert [line.split("│")[-2].strip() for line in lines] == ["25.0", "12.5"]


def test_scores_by_class_stand_in_the_column_of_their_features():
    pairs = {"image": (("River", 0.5), ("Forest", 0.25)), "both": (("River", 0.75),)}
    rows = [dataclasses.replace(ROW, features=f, by_class=p) for f, p in pairs.items()]
    console = Console(width=140, record=True, file=io.StringIO())
    print_scores(rows, console)
    text = console.export_text().partition("by class")[2]
    cells = [[cell.strip() for cell in s.split("│")[1:-1]] for s in text.splitlines()]
    assert [c for c in cells if c] == [["River", "50.0", "75.0"], ["Forest", "25.0", ""]]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "evaluation.json"
    write_scores(path, [ROW])
    before = path.read_bytes()

    def full(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_scores(path, [dataclasses.replace(ROW, value=0.1)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    "changed",
    [
        {"value": 81.25},
        {"value": -0.1},
        {"value": float("nan")},
        {"value": "0.8"},
        {"value": True},
        {"metric": "loss", "value": float("inf")},
        {"n": -1},
        {"n": 1.5},
        {"model": None},
        {"step": -1},
        {"majority": 1.5},
    ],
)
def test_rows_that_cannot_be_right(changed):
    with pytest.raises(ResultsError, match=r"(value|n|model|step|majority) .*is "):
        dataclasses.replace(ROW, **changed)


def test_other_metrics_may_have_any_value():
    assert dataclasses.replace(ROW, metric="loss", value=12.5).value == 12.5


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ("\xff", "is not JSON"),
        ("{}", "holds a dict: expected a list"),
        ("[3]", "row 0 is not a row of dataset"),
        (json.dumps([dataclasses.asdict(ROW) | {"extra": 1}]), "row 0 is not a row"),
        (json.dumps([dataclasses.asdict(ROW), {"value": 1}]), "row 1 is not a row"),
        (json.dumps([dataclasses.asdict(ROW) | {"value": 95}]), "row 0: value of accuracy is 95"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = tmp_path / "evaluation.json"
    path.write_text(text, encoding="latin-1")
    for action in (read_scores, lambda p: write_scores(p, [ROW])):
        with pytest.raises(ResultsError, match=message) as error:
            action(path)
        assert str(path) in str(error.value)
    assert path.read_text(encoding="latin-1") == text


@pytest.mark.usefixtures("no_type_checks")
@given(
    st.binary(max_size=60)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(list(dataclasses.asdict(ROW))), json_values).map(
        lambda changed: json.dumps([dataclasses.asdict(ROW) | changed]).encode()
    )
)
@example(b"[" * 100_000)
@settings(max_examples=150, deadline=None)
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "evaluation.json"
    path.write_bytes(content)
    try:
        rows = read_scores(path)
    except ResultsError:
        return
    write_scores(path, rows)
    assert {row.key: row for row in read_scores(path)} == {row.key: row for row in rows}


def test_headings_fit_a_narrow_terminal():
    """The scores of an evaluation with locations: 3 kinds of features, as they are and blocked."""
    rows = [
        dataclasses.replace(
            ROW, features=kind, protocol=f"precision10{blocked}", metric="precision", by_class=pairs
        )
        for kind in ("image", "metadata", "both")
        for blocked in ("", " blocked 1deg")
        for pairs in [(("HerbaceousVegetation", 0.5), ("River", 0.25))]
    ]
    worst = [dataclasses.replace(row, metric="worst_class", value=0.25) for row in rows]
    console = Console(width=80, record=True, file=io.StringIO())
    print_scores([*rows, *worst], console)
    text = console.export_text()
    assert "…" not in text
    assert text.count("by class, %") == 2
    assert text.count("25.0 River (n 4050)") == len(worst)


def test_table_has_a_line_a_group_and_a_column_a_metric():
    console = Console(width=140, record=True, file=io.StringIO())
    rows = [
        ROW,
        dataclasses.replace(ROW, metric="macro_f1", value=0.7),
        dataclasses.replace(ROW, features="both", metric="loss", value=1.23456),
    ]
    print_scores(rows, console)
    title, *lines = console.export_text().splitlines()
    assert title.strip() == "dataset eurosat, split val, model satmip vit"
    cells = [[cell.strip() for cell in s.split("│")[1:-1]] for s in lines if "knn5" in s]
    assert cells == [
        ["image", "knn5", "4050", "81.2", "70.0", ""],
        ["both", "knn5", "4050", "", "", "1.235"],
    ]
    print_scores([*rows, dataclasses.replace(ROW, model="[b]colour")], console)
    title, *lines = console.export_text().splitlines()
    assert title.strip() == "dataset eurosat, split val"
    (cells,) = [[cell.strip() for cell in s.split("│")[1:-1]] for s in lines if "colour" in s]
    assert cells == ["[b]colour", "image", "knn5", "4050", "81.2", "", ""]


def test_evaluations_that_end_together_keep_the_scores_of_each_other(tmp_path, monkeypatch):
    path = tmp_path / "evaluation.json"
    rows = [dataclasses.replace(ROW, model=f"model {i}") for i in range(6)]
    read = module.read_scores

    def slowly(path):
        found = read(path)
        time.sleep(0.02)  # the others come to write meanwhile
        return found

    write_scores(path, [ROW])
    monkeypatch.setattr(module, "read_scores", slowly)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda row: write_scores(path, [row]), rows))
    assert {row.model for row in read(path)} == {ROW.model, *(row.model for row in rows)}
