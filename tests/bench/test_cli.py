"""The `satmip bench` command."""

import json

from click.testing import CliRunner

from satmip_jax.bench.cli import bench


def test_lines_of_the_command(tmp_path):
    out = tmp_path / "lines.jsonl"
    options = ["--banks", "100", "--queries", "20", "--widths", "8,16", "--rounds", "1"]
    result = CliRunner().invoke(bench, ["knn", *options, "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    rates = [row for row in rows if row["metric"] == "throughput"]
    assert len(rates) == 6
    assert {row["width"] for row in rates} == {8, 16}
    assert all(row["bank"] == 100 and row["queries"] == 20 for row in rates)
    assert all(row["unit"] == "queries/s" and row["value"] > 0 for row in rates)
    assert all(row["value"] == 0 for row in rows if row["metric"] == "differing predictions")


def test_lists_of_numbers_are_checked():
    for wrong in ("100,x", "0", ""):
        result = CliRunner().invoke(bench, ["knn", "--banks", wrong])
        assert result.exit_code == 2
        assert "is not a list of positive numbers" in result.output
    result = CliRunner().invoke(bench, ["loss", "--losses", "info_nce,l2"])
    assert result.exit_code == 1
    assert "unknown loss l2; choose from info_nce" in result.output
