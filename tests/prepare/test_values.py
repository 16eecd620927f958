"""Values of tables in a preparation: conversions, examples and contradictions in the report."""

import io
import json
from datetime import datetime, timedelta

from rich.console import Console

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.schema import Schema
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.folder import Folder
from tests.metadata.test_plausibility import records
from tests.prepare.fake_source import contents, jpeg


def make(folder, rows, out="out", **options):
    """Prepare a table of JSON lines with one image per row."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for i in range(len(rows)):
        (images / f"{i:02d}.jpg").write_bytes(jpeg(i, 16, 16))
    table = folder / "table.jsonl"
    lines = (json.dumps({"path": f"{i:02d}.jpg", **row}) for i, row in enumerate(rows))
    table.write_text("\n".join(lines))
    source = Folder([images], metadata=table, **options.pop("source", {}))
    options = {"image_size": 16, "workers": 0, "shard_size": 4, "progress": False, **options}
    return prepare(source, folder / out, **options)


def shown(report):
    console = Console(width=200, record=True, file=io.StringIO())
    report.show(console)
    return console.export_text()


ROWS = [
    {"target_azimuth_angle": -90, "timestamp": "06/07/2017 10:10:31", "cloud_cover": 0.25},
    {"target_azimuth_angle": "-45", "timestamp": "23/07/2017", "cloud_cover": 0},
    {"target_azimuth_angle": 90, "timestamp": 1497348631, "cloud_cover": "0.5"},
    {"target_azimuth_angle": "north", "country_code": "YUG"},
    {"country_code": "UK", "timestamp": "June 2017"},
]


def test_conversions_and_examples_are_reported(tmp_path):
    report = make(tmp_path, ROWS)
    data = ShardDataset(tmp_path / "out", "train")
    values = [data[i]["metadata"].to_json() for i in range(len(data))]
    assert [v.get("target_azimuth_angle") for v in values] == [270.0, 315.0, 90.0, None, None]
    assert [v.get("cloud_cover") for v in values] == [25.0, 0.0, 50.0, None, None]
    assert [v.get("timestamp", "")[:10] for v in values[:3]] == [
        "2017-07-06",
        "2017-07-23",
        "2017-06-13",
    ]
    text = shown(report)
    for expected in (
        "2 values of target_azimuth_angle: in -180..180: wrapped to 0..360",
        "2 values of timestamp: date read with the day first",
        "1 value of timestamp: epoch seconds",
        "3 values of cloud_cover: read as a fraction of 1, multiplied by 100",
        "1 value of country_code: UK: read as GBR",
        "'north'",
        "'YUG'",
        "'June 2017'",
    ):
        assert expected in text
    written = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert written["notes"]["country_code"] == {"UK: read as GBR": 1}
    assert written["examples"]["country_code"] == {"unknown category": ["'YUG'"]}
    assert written["problems"]["country_code"]["unknown category"] == 1
    assert Schema.load(tmp_path / "out" / "schema.json").provenance["source.conventions"] == {
        "timestamp": "day first",
        "cloud_cover": "fraction",
    }


def test_workers_and_resumed_runs_report_the_same(tmp_path):
    rows = ROWS * 3
    one = make(tmp_path, rows, "one")
    two = make(tmp_path, rows, "two", workers=2)
    again = make(tmp_path, rows, "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for report in (two, again):
        assert report.problems == one.problems
        assert report.problems.examples == one.problems.examples
        assert report.plausibility.to_json() == one.plausibility.to_json()


def test_an_order_of_dates_that_nothing_tells_is_asked_for(tmp_path):
    rows = [{"timestamp": "06/07/2017"}, {"timestamp": "08/09/2017"}]
    report = make(tmp_path, rows)
    assert report.problems.count("timestamp", "ambiguous date") == 2
    assert "--dates day-first" in shown(report)
    report = make(tmp_path, rows, "second", source={"dates": "month-first"})
    assert report.problems.count("timestamp") == 0


def test_contradictions_are_reported(tmp_path):
    raws = records(6)
    text = shown(make(tmp_path, raws, "good"))
    assert "disagree" not in text
    text = shown(make(tmp_path, [{**r, "location": r["location"][::-1]} for r in raws], "swapped"))
    assert "latitude and longitude look exchanged" in text

    def late(raw):
        when = datetime.fromisoformat(raw["timestamp"]) + timedelta(hours=2)
        return {**raw, "timestamp": when.isoformat()}

    report = make(tmp_path, [late(raw) for raw in raws], "late")
    words = "6 of 6 records disagree: the times look 2 h ahead of UTC: a wrong time zone"
    assert words in shown(report)
    written = json.loads((tmp_path / "late" / "prepare_report.json").read_text())
    assert words in written["findings"][0]
    assert written["plausibility"]["sun"]["shift +2"] == 6


def test_usual_values_leave_no_trace(tmp_path):
    rows = [{"cloud_cover": 14, "timestamp": "2017-06-13", "utm_zone": "32T"}] * 3
    report = make(tmp_path, rows)
    schema = Schema.load(tmp_path / "out" / "schema.json")
    assert "source.conventions" not in schema.provenance
    assert report.problems.note_rows() == []
    assert report.plausibility.to_json() == {}
