"""The section of a study."""

import base64
import csv
import json
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.report.files import ReportError
from satmip_jax.report.page import write_report
from satmip_jax.report.study import pivot, read_study, read_table
from tests.report.pages import HOSTILE, open_page, without_data

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


def test_scores_are_summarized_over_the_seeds(tmp_path):
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


def test_page_of_a_study(tmp_path, scored_run):
    study = write_study(tmp_path / "study", study_rows())
    run = without_data(scored_run, tmp_path / "run")
    page = open_page(write_report([study, run], tmp_path / "report.html"))
    for text in (
        *HOSTILE[:2],
        "out of memory",
        "not run yet metapred",
        "Published scores on eurosat",
        "48.4",
        "jitter_p: 0.8 -> 0.0",
        "8 × H100; 2 × cpu",
        "83.0 ± 3.6",
    ):
        assert text in page.text, text
    for text in ("runs compared", "nan"):
        assert text not in page.text, text
    plots = [a["src"] for tag, a in page.tags if tag == "img" and "study" in a["alt"]]
    assert (
        base64.b64decode(plots[0].split(",")[1]).decode() == SVG
    )  # as an image it cannot run scripts
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
