"""The page of `satmip report`: true numbers, nothing from elsewhere, no stranger's code."""

import base64
import csv
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from satmip_jax.data.shard_format import ShardError
from satmip_jax.evaluation.protocols import score
from satmip_jax.evaluation.results import ResultsError, Score, write_scores
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import SchemaError
from satmip_jax.report import embeddings as encoding
from satmip_jax.report.classes import classes
from satmip_jax.report.files import ReportError
from satmip_jax.report.hardware import history
from satmip_jax.report.neighbours import choose_queries, neighbours
from satmip_jax.report.page import short_names, write_report
from satmip_jax.report.published import published
from satmip_jax.report.retrieval import ranks, recall, retrieval, varying_lines
from satmip_jax.report.run import facts, read_run
from satmip_jax.report.scores import scores
from satmip_jax.report.study import pivot, read_study, read_table
from satmip_jax.training.loop import train

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{$ _hidden",
    "森林 & <b>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}",
)


class Page(HTMLParser):
    """What a browser makes of a page: its tags and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def check(self) -> None:
        """Self-contained, inert, and fit for those who do not see it."""
        ids = {attrs["id"] for _, attrs in self.tags if "id" in attrs}
        for tag, attrs in self.tags:
            assert tag not in ("script", "iframe", "object", "embed", "link", "base", "form"), tag
            assert not [name for name in attrs if name.startswith("on")], attrs
            assert (attrs.get("src") or "data:image/").startswith("data:image/"), attrs
            if "href" in attrs:
                assert attrs["href"].removeprefix("#") in ids, attrs
            if tag == "img":
                assert attrs.get("alt"), "a picture without words"
        assert not re.search(r"url\(|@import|https?:", self.source)
        assert len(ids) == len([1 for _, attrs in self.tags if "id" in attrs]), "an id twice"


def open_page(path: Path) -> Page:
    page = Page(path)
    page.check()
    return page


ROWS = [
    Score("synthetic", "val", "satmips mu/8", "image", "knn5", "accuracy", 0.4375, 24, 0.25, 0.625),
    Score("synthetic", "val", "colour", "image", "knn5", "accuracy", 0.3125, 24, 0.15, 0.5),
    Score("synthetic", "val", "satmips mu/8", "both", "linear", "macro_f1", 0.58333, 24),
    Score("synthetic", "val", "satmips mu/8", "image", "knn5 blocked 1deg", "accuracy", 0.2, 20),
]


@pytest.fixture(scope="module")
def scored_run(tiny_run, tmp_path_factory) -> Path:
    """A copy of the tiny run with scores beside it."""
    folder = tmp_path_factory.mktemp("scored") / "satmips"
    shutil.copytree(tiny_run, folder)
    write_scores(folder / "evaluation.json", ROWS)
    return folder


@pytest.fixture(scope="module")
def encoded(scored_run, tiny_shards_dir):
    """The tiny run on fewer examples than there are, so that records are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "MAX_BANK", 50)
        patch.setattr(encoding, "MAX_QUERIES", 17)
        return encoding.encode(read_run(scored_run, "a"), str(tiny_shards_dir))


@pytest.fixture(scope="module")
def page(scored_run, tmp_path_factory) -> Page:
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert write_report([scored_run], out) == out
    return open_page(out)


def without_data(run: Path, copy: Path, **files: str) -> Path:
    """A copy of a run whose data are gone, with some of its files replaced."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    config = json.loads((copy / "config.json").read_text())
    config["data"]["dir"] = str(copy / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (copy / name.replace("_json", ".json")).write_text(text)
    return copy


# --- a run ----------------------------------------------------------------------------------------


def test_the_page_holds_the_scores_with_their_intervals(page):
    for text in ("43.8", "25.0–62.5", "31.2", "58.3", "knn5 blocked 1deg", "colour", "linear"):
        assert text in page.text, text
    assert "<b>43.8</b>" in page.source  # the better of the two
    assert "<b>31.2</b>" not in page.source
    assert "<b>58.3</b>" not in page.source  # nothing to be better than


def test_the_page_holds_all_its_parts(page):
    contents = page.text.split("image encoder")[0]
    for title in (
        *("Scores", "Training", "Classes", "Nearest neighbours", "Images and metadata"),
        *("Map of the features", "On the ground", "Data", "Configuration"),
    ):
        assert title in contents
        assert f">{title}</h3>" in page.source
    assert "64 (4 steps of 16, global)" in page.text
    assert "optimizer.batch_size" in page.text
    assert page.source.count("data:image/jpeg") >= 8 * 7  # queries and their neighbours


def test_numbers_are_those_of_scikit_learn(encoded):
    bank, queries = encoded.bank.features, encoded.queries.features
    assert (len(bank.labels), len(queries.labels)) == (50, 17)
    scaler = StandardScaler().fit(bank.by_kind["image"].astype(np.float64))
    x, y = (scaler.transform(part.by_kind["image"]) for part in (bank, queries))
    knn = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(x, bank.labels)
    predicted = knn.predict(y)
    assert (predicted == encoded.predicted).mean() > 0.9  # but for ties in float32
    found = classes(encoded)
    assert found.accuracy == pytest.approx(accuracy_score(queries.labels, encoded.predicted))
    options = {"kinds": ["image"], "protocols": ["knn5"], "block": 0, "model": ""}
    rows = score(bank, queries, dataset=encoded.queries.dataset, **options)
    # the same as `satmip evaluate` gives for these examples
    assert found.accuracy == next(row.value for row in rows if row.metric == "accuracy")
    assert np.sum(found.matrix) == 17
    assert np.trace(found.matrix) == round(17 * found.accuracy)
    assert found.majority == pytest.approx(np.bincount(queries.labels).max() / 17)


def test_pictures_are_of_the_records_that_were_encoded(encoded):
    for part in (encoded.bank, encoded.queries):
        labels = [part.dataset[int(number)]["label"] for number in part.numbers]
        np.testing.assert_array_equal(labels, part.features.labels)
    (query, near), *_ = neighbours(encoded)
    row = choose_queries(encoded.queries.features.labels)[0]
    record = encoded.queries.dataset[int(encoded.queries.numbers[row])]
    assert base64.b64decode(query.src.split(",")[1]) == record["image"]
    assert len(near) == 6
    notes = [float(shown.note) for shown in near]
    assert notes == sorted(notes, reverse=True)
    for shown in near:
        assert shown.mark == ("right" if shown.label == query.label else "wrong")


def test_ranks_are_scipys():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (40, 40)).astype(np.float32)  # many ties
    want = [rankdata(-row, method="average")[i] for i, row in enumerate(scores)]
    np.testing.assert_allclose(ranks(scores), want)


def test_recall_of_a_perfect_and_of_a_blind_search():
    n = 200
    perfect = recall("", ranks(np.eye(n)))
    assert perfect.at[1] == (1.0, 1 / n)
    assert perfect.median == (1.0, 100.5)
    blind = recall("", ranks(np.zeros((n, n))))  # all alike: neither luck nor skill
    assert blind.at[10] == (0.0, 0.05)
    assert blind.median == (100.5, 100.5)


def test_retrieval_marks_its_own(encoded):
    found = retrieval(encoded)
    scores = encoded.embedded[0] @ encoded.embedded[1].T
    assert found.candidates == 17
    assert found.recalls[0].median[0] == np.median(ranks(scores))
    for match in found.by_image:
        own = [lines for lines, mark, _ in match.records if mark == "own"]
        assert (len(own) == 1) == (match.rank <= 3)
        assert all(lines == match.lines for lines in own)


def test_what_all_records_share_is_not_shown():
    records = [Metadata.parse({"gsd": 10, "cloud_cover": cover}) for cover in (3, 40, None)]
    texts = varying_lines(records, "all")
    assert [len(lines) for lines in texts] == [1, 1, 0]
    assert "40" in texts[1][0]
    assert varying_lines(records, "GSD") == [[], [], []]


def test_queries_are_of_different_classes_where_there_are_enough():
    labels = np.repeat(np.arange(10), 50)
    assert len(set(labels[choose_queries(labels)])) == 8
    assert sorted(labels[choose_queries(np.array([0, 0, 0, 1]))]) == [0, 0, 0, 0]
    assert len(choose_queries(np.array([2, 2, -1]))) == 3


# --- what is not there ----------------------------------------------------------------------------


def test_a_page_without_data_says_so(scored_run, tmp_path):
    run = without_data(scored_run, tmp_path / "run")
    page = open_page(write_report([run], tmp_path / "report.html"))
    assert "43.8" in page.text
    assert f"no prepared data in {run / 'gone'}" in page.text
    assert "give their folder as --data" in page.text
    assert "Nearest neighbours" not in page.text
    assert "Data" in page.text  # the fields, from the run's own schema


def test_data_that_were_asked_for_are_not_passed_over(scored_run, tmp_path):
    with pytest.raises(ShardError, match="no prepared data"):
        write_report([scored_run], tmp_path / "report.html", data=tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_page_without_checkpoints_or_of_a_run_just_begun(scored_run, tiny_shards_dir, tmp_path):
    run = without_data(scored_run, tmp_path / "run")
    page = open_page(write_report([run], tmp_path / "a.html", data=tiny_shards_dir))
    assert "holds no checkpoints" in page.text
    for name in ("metrics.jsonl", "evaluation.json", "schema.json"):
        (run / name).unlink()
    page = open_page(write_report([run], tmp_path / "b.html"))
    assert "satmip evaluate" in page.text


def test_data_on_another_machine_are_not_fetched_unasked(scored_run, tmp_path):
    run = without_data(scored_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["dir"] = "gs://somebody/else"
    (run / "config.json").write_text(json.dumps(config))
    page = open_page(write_report([run], tmp_path / "report.html"))
    assert "fetched only for --data" in page.text


def test_a_method_without_metadata_whose_data_lie_elsewhere(tiny_config, tiny_shards_dir, tmp_path):
    run = tmp_path / "simclr"
    train(tiny_config("simclr", "--config.optimizer.images=16"), run)
    gone = json.loads((run / "config.json").read_text())
    gone["data"]["dir"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(gone))
    page = open_page(write_report([run], tmp_path / "report.html", data=tiny_shards_dir))
    assert "Nearest neighbours" in page.text
    assert "Images and metadata" not in page.text
    assert "negatives per anchor SimCLR 30" in page.text
    used = re.findall(r"<td>(yes|no)</td>", page.source)
    assert used == ["no"] * 15  # of the metadata fields


def test_folders_that_are_neither(tmp_path):
    with pytest.raises(ReportError, match=r"neither config.json .* nor study.json"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ReportError, match="nothing to report on"):
        write_report([], tmp_path / "report.html")


# --- several --------------------------------------------------------------------------------------


def test_runs_are_compared(scored_run, tmp_path):
    one = without_data(scored_run, tmp_path / "a" / "run")
    other = without_data(scored_run, tmp_path / "b" / "run")
    better = dataclasses.replace(ROWS[0], value=0.875, low=0.7, high=0.95)
    write_scores(other / "evaluation.json", [better])
    page = open_page(write_report([one, other, one], tmp_path / "report.html"))
    sections = re.findall(r"<h2>(.*?)</h2>", page.source)
    assert sections[0] == "2 runs compared"
    assert [name.split(":")[0] for name in sections[1:]] == ["a/run", "b/run"]
    first = page.source.split("<h2>")[1]
    table = first.split("<tbody>")[1].split("</tbody>")[0]
    knn5 = [row.split("</td>")[2] for row in table.split("<tr")[1:]]
    shown = [re.search(r"\d+\.\d", cell)[0] for cell in knn5]
    assert shown == ["43.8", "31.2", "87.5", "31.2"]  # image features of both runs
    assert [shown[i] for i, cell in enumerate(knn5) if "<b>" in cell] == ["87.5"]
    legend = re.findall(r"</i>(.*?)</li>", first)
    assert {"a/run", "b/run"} <= set(legend)


def test_short_names_tell_apart():
    paths = [Path("/r/spatial/simclr"), Path("/r/random/simclr"), Path("/r/x/satmip")]
    assert short_names(paths) == ["spatial/simclr", "random/simclr", "x/satmip"]
    assert short_names(paths[1:]) == ["simclr", "satmip"]


def test_published_numbers_stand_beside_ours_only_where_they_belong():
    def methods(name):
        return [(row.method, row.value) for row in published(name) if row.experiment == "transfer"]

    assert methods("eurosat") == [("simclr", 94.3), ("satmip", 95.7), ("satmips", 95.1)]
    assert methods("UC_Merced")[1] == ("satmip", 95.2)
    assert published("fmow")[0].value == 61.1
    assert published("eurosat_spatial") == published("mine") == []
    row = dataclasses.replace(ROWS[0], dataset="eurosat")
    assert scores([("a", [row])]).published[0][0] == "eurosat"


# --- strangers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile_page(scored_run, tiny_shards_dir, tmp_path_factory) -> Page:
    """A run and its data full of names that want to be more than names."""
    root = tmp_path_factory.mktemp("hostile")
    shards, run = root / "shards", root / "run <b onclick=alert(1)>"
    shutil.copytree(tiny_shards_dir, shards)
    schema = json.loads((shards / "schema.json").read_text())
    names = [*HOSTILE, *schema["classes"]][: len(schema["classes"])]
    (shards / "schema.json").write_text(json.dumps(schema | {"classes": names}))
    problems = {"gsd": {HOSTILE[0]: 3}}
    bad = [{"split": "train", "id": "x", "reason": HOSTILE[1]}] * 2
    report = {"splits": {HOSTILE[0]: 4}, "bad": bad, "skipped": [], "problems": problems}
    (shards / "prepare_report.json").write_text(json.dumps(report))
    shutil.copytree(scored_run, run)
    rows = [dataclasses.replace(ROWS[0], model=name, protocol=name) for name in HOSTILE]
    write_scores(run / "evaluation.json", rows)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, f"{HOSTILE[0]}_loss": 1.0, "simclr_loss": "no"}) + "\n")
        file.write('{"step": 4, "loss": 1e999, "x_loss": NaN, "ll_accuracy": [1]}\n')
        file.write('{"step": 4, "loss"')  # cut off in writing
    other = without_data(scored_run, root / "other")
    return open_page(write_report([run, run, other], root / "report.html", data=shards))


def test_hostile_names_stay_names(hostile_page):
    for name in HOSTILE[:2]:
        assert name not in hostile_page.source
        assert name in hostile_page.text
    tags = {tag for tag, _ in hostile_page.tags}
    assert tags <= {
        *("html", "head", "meta", "title", "style", "body", "div", "header", "nav", "main"),
        *("section", "footer", "h1", "h2", "h3", "h4", "p", "ul", "li", "dl", "dt", "dd", "a"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img"),
        *("b", "i", "small", "span", "code", "pre", "details", "summary"),
    }
    assert "49" not in re.findall(r"<h4>(.*?)</h4>", hostile_page.source)
    (policy,) = [a["content"] for _, a in hostile_page.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")


FILES = ("config.json", "evaluation.json", "metrics.jsonl", "schema.json", "environment.jsonl")


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(FILES),
    text=st.binary(max_size=40)
    | st.sampled_from([b"[" * 100_000, b"{}", b"[]", b'{"step": {}}', b'{"data": {"dir": 5}}'])
    | st.sampled_from([b'{"step": 1, "devices": [], "versions": 3}', b'{"step": 1e99}']),
)
def test_any_file_is_read_or_refused(scored_run, tmp_path_factory, file, text):
    folder = tmp_path_factory.mktemp("any")
    for name in FILES:
        shutil.copy(scored_run / name, folder / name)
    (folder / file).write_bytes(text)
    refused = None
    try:
        assert facts(read_run(folder, "any"))
    except (ReportError, ResultsError, SchemaError) as error:
        refused = str(error)
    assert refused is None or file in refused


def test_files_that_are_too_large_are_refused(scored_run, tmp_path, monkeypatch):
    run = without_data(scored_run, tmp_path / "run")
    monkeypatch.setattr("satmip_jax.report.files.MAX_BYTES", 100)
    with pytest.raises(
        ReportError, match=r"config.json has [\d,]+ bytes: a report reads at most 100"
    ):
        write_report([run], tmp_path / "report.html")


def test_the_machine_is_told_with_every_change():
    start = {"step": 0, "device_kind": "H100", "devices": 8, "versions": {"jax": "0.10.2"}}
    more = {"step": 1500, "processes": 2}
    assert history([start, start | {"step": 900}, start | more]) == [
        ("hardware", "8 × H100; 8 × H100, 2 processes from step 1,500"),
        ("versions", "jax 0.10.2"),
    ]
    assert history([start | more])[0][1] == "not recorded; 8 × H100, 2 processes from step 1,500"
    assert [said for _, said in history([])] == ["not recorded"] * 2
    cpu = {"step": 0, "device_kind": "cpu", "devices": 1, "processor": "Xeon", "cores": 2}
    assert history([cpu])[0][1] == "1 × cpu (Xeon, 2 cores)"


# --- a study --------------------------------------------------------------------------------------

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def write_study(folder: Path, rows: list[dict], **facts) -> Path:
    folder.mkdir(parents=True)
    about = {
        "name": "methods",
        "title": HOSTILE[0],
        "description": "What is compared.",
        "x_axis": {"column": "variant", "label": "method", "scale": "category"},
        "config": {"seed": 0},
        "seeds": [0, 1, 2],
        "data": {"eurosat": "data/eurosat"},
        "skipped": {"text": HOSTILE[1]},
        "variants": ["satmips", "simclr", "metapred"],
        "failed": [{"variant": "simclr", "seed": 1, "reason": "out of memory"}],
        "versions": {"jax": "0.10.2"},
        "recipes": {"satmip": ["augment.jitter_p: 0.8 -> 0.0"]},
        "machines": [{"device_kind": "H100", "devices": 8}, {"device_kind": "cpu", "devices": 2}],
    }
    (folder / "study.json").write_text(json.dumps(about | facts))
    (folder / "plot.svg").write_text(SVG)
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def study_rows() -> list[dict]:
    common = {
        **{"study": "methods", "method": "m", "images": 80000, "dataset": "eurosat"},
        **{"split": "val", "model": "m", "features": "image", "protocol": "knn5"},
        **{"metric": "accuracy", "n": 40, "low": "", "high": "", "length": "full"},
        "peak_bytes": 3 * 2**20,
    }

    def row(variant, seed, value, **more):
        own = {"variant": variant, "seed": seed, "value": value, "train_seconds": 100 + seed}
        return common | own | more

    return [
        *(row("satmips", seed, value) for seed, value in enumerate((0.80, 0.82, 0.87))),
        row("satmips", 0, 0.7, protocol="linear", metric="macro_f1"),
        row("simclr", 0, 0.75, peak_bytes=""),
        row("simclr", 1, "nan"),
    ]


def test_a_study_is_tabled_over_its_seeds(tmp_path):
    table = pivot(read_table(write_study(tmp_path / "s", study_rows()) / "results.csv"))
    assert table.columns == [("knn5", "accuracy"), ("linear", "macro_f1")]
    (head, cells), (other, other_cells) = table.lines
    mean, std = np.mean([80, 82, 87]), np.std([80, 82, 87], ddof=1)
    assert cells == [f"{mean:.1f} ± {std:.1f}", "70.0"]
    assert other_cells == ["75.0", ""]
    assert dict(zip(table.head, head, strict=True)) == {
        **{"variant": "satmips", "dataset": "eurosat", "features": "image", "images": "80,000"},
        **{"train seconds": "101 s", "peak bytes": "3.0 MiB", "length": "full", "seeds": "3"},
    }
    assert other[-1] == "1"


# of EuroSAT, beside a study on it; and the recipe that one of its methods has of its own
TOLD = ("Published for eurosat", "48.4", "jitter_p: 0.8 -> 0.0", "not done yet metapred")


def test_a_study_on_the_page(tmp_path, scored_run):
    study = write_study(tmp_path / "study", study_rows())
    run = without_data(scored_run, tmp_path / "run")
    page = open_page(write_report([study, run], tmp_path / "report.html"))
    for text in (
        *HOSTILE[:2],
        "out of memory",
        "not done yet metapred",
        "8 × H100; 2 × cpu",
        "83.0 ± 3.6",
        *TOLD,
    ):
        assert text in page.text, text
    for text in ("runs compared", "nan"):
        assert text not in page.text, text
    plots = [a["src"] for tag, a in page.tags if tag == "img" and "study" in a["alt"]]
    assert base64.b64decode(plots[0].split(",")[1]).decode() == SVG  # an image: it cannot run
    (study / "plot.svg").unlink()
    (study / "results.csv").unlink()
    page = open_page(write_report([study], tmp_path / "report.html"))
    assert "no plot.svg" in page.text
    assert "no results.csv" in page.text


@settings(max_examples=80, deadline=None)
@given(
    facts=st.dictionaries(
        st.sampled_from(["title", "x_axis", "seeds", "data", "skipped", "failed", "versions"]),
        st.none()
        | st.integers()
        | st.text(max_size=4)
        | st.lists(st.integers() | st.none())
        | st.dictionaries(st.text(max_size=3), st.none() | st.lists(st.none())),
    ),
    table=st.text(max_size=30)
    | st.just("variant,seed,metric,value\na\nb,0,accuracy,1,2,3\n")
    | st.just('variant,seed,metric,value\n"a'),
)
def test_any_study_is_read_or_refused(tmp_path_factory, facts, table):
    folder = tmp_path_factory.mktemp("any")
    (folder / "study.json").write_text(json.dumps(facts))
    (folder / "results.csv").write_text(table, encoding="utf-8", newline="")
    refused = None
    try:
        assert all(isinstance(value, str) for _, value in read_study(folder).facts)
    except ReportError as error:
        refused = str(error)
    assert refused is None or "results.csv" in refused
