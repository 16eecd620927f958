"""URLs given where only local files are possible."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.runtime.paths import PathError, as_path, is_remote, local_path


@pytest.mark.parametrize("url", ["gs://bucket/run", Path("gs://bucket/run"), "s3://b", "hf://a/b"])
def test_urls_are_no_local_folders(url):
    with pytest.raises(PathError, match=r"--out (gs|s3|hf):/"):
        local_path(url, "--out")


@pytest.mark.parametrize("path", ["run", "./a:b/c", "/data/x:1", "C:/data"])
def test_local_paths_are_kept(path):
    assert not is_remote(path)
    assert local_path(path, "--out") == Path(path)


COMMANDS = [
    "quickstart --out URL",
    "init-config URL --data d",
    "train --config URL --workdir w",
    "doctor --config eurosat --accelerator v5e --json URL",
    "embed URL --model m --out a.parquet",
    "locate URL --model m",
    "prepare eurosat --source URL --out o",
    "prepare eurosat --source . --metadata URL --out o",
    "bench pipeline --data URL",
    "bench knn --out URL",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_url_that_cannot_work_is_refused_before_anything_starts(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "gs://bucket/x"
    result = CliRunner().invoke(cli, line.replace("URL", url).split())
    assert result.exit_code, result.output
    message = f"{result.output} {result.exception}"
    assert url in message
    assert "local disk" in message
    assert not [*tmp_path.iterdir()]  # no folder named gs:


OTHER = [
    "train --config eurosat --workdir URL",
    "evaluate --workdir URL --data d --baseline colour",
    "export URL --out o",
    "calibrate URL --data d",
    "locate a.png --model m --json URL",
    "search URL --id a",
    "embed a.png --model m --out URL",
    "export m --out URL",
    "report URL",
    "report run --out URL",
    "study fields --config eurosat --out URL --config.data.dir=d",
    "prepare synthetic --out URL",
]


@pytest.mark.parametrize("line", OTHER)
@pytest.mark.parametrize("url", ["hf://bucket/x", "gs://"])
def test_only_folders_of_known_stores_are_taken(line, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, line.replace("URL", url).split())
    assert isinstance(result.exception, PathError)
    assert url in str(result.exception)
    assert not [*tmp_path.iterdir()]


def test_a_missing_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(PathError, match=r'pip install "satmip-jax\[gcs\]"'):
        as_path("gs://bucket/run")
