"""URLs given where only local files are possible."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.runtime.paths import PathError, is_remote, local_path


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
    "train --config eurosat --workdir URL",
    "doctor --config eurosat --workdir URL",
    "doctor --config eurosat --accelerator v5e --json URL",
    "evaluate --workdir URL --data d --baseline colour",
    "export URL --out o",
    "export m --out URL",
    "report URL",
    "report run --out URL",
    "study fields --config eurosat --out URL",
    "prepare synthetic --out URL",
    "prepare eurosat --source URL --out o",
    "prepare eurosat --source . --metadata URL --out o",
    "prepare synthetic --statistics-from URL --out o",
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
