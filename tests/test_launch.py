"""Launch recipes: the shell in them is sound, the YAML is what the schedulers expect.

The structural checks follow the API references of JobSet (jobset.x-k8s.io/v1alpha2) and Kubernetes'
batch/v1, and SkyPilot's YAML specification; the `skypilot` package itself would be a heavy
dependency of the tests.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from satmip_jax.cli import cli
from satmip_jax.config.loading import load_config
from satmip_jax.planning.advice import SMALL_GROUPS
from tests.conftest import REPOSITORY

LAUNCH = REPOSITORY / "launch"


def shellcheck(*arguments: str, script: str | None = None) -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--external-sources", *arguments],
        input=script,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert result.returncode == 0, result.stdout + result.stderr


SCRIPTS = sorted(p.name for p in LAUNCH.iterdir() if p.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_shell(name):
    shellcheck(f"launch/{name}")


def check_train(words: list[str]) -> dict[str, str]:
    """The command is `satmip train` with options it has and a config that loads; the options."""
    assert [Path(words[0]).name, words[1]] == ["satmip", "train"]
    joined = " ".join(words[2:])
    options = dict(re.findall(r"--([\w.]+)[= ](\S+)", joined))
    known = {opt.lstrip("-") for param in cli.commands["train"].params for opt in param.opts}
    overrides = [f"--{k}={v}" for k, v in options.items() if k.startswith("config.")]
    assert {name for name in options if not name.startswith("config.")} <= known
    load_config(str(REPOSITORY / options["config"]), overrides)
    return options


def test_jobset():
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert jobset.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = jobset["spec"]
    assert spec.keys() == {"network", "failurePolicy", "replicatedJobs"}
    assert spec["network"] == {"enableDNSHostnames": True}
    assert spec["failurePolicy"]["maxRestarts"] > 0
    (hosts,) = spec["replicatedJobs"]
    assert hosts.keys() == {"name", "replicas", "template"}
    assert hosts["replicas"] == 1  # the coordinator's name below is that of the first
    job = hosts["template"]["spec"]
    # every host is needed at once, each once, and the failure of one is that of all
    assert job["completions"] == job["parallelism"] > 1
    assert job["completionMode"] == "Indexed"
    assert job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # alone it could not join the others again
    assert pod["terminationGracePeriodSeconds"] > 30  # time to save
    (container,) = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    (secret,) = (entry for entry in container["env"] if "value" not in entry)
    assert secret["name"] == "WANDB_API_KEY"
    assert secret["valueFrom"]["secretKeyRef"]["optional"]  # it starts without, too
    assert all(isinstance(value, str) for value in env.values())
    name = jobset["metadata"]["name"]
    address = f"{name}-{hosts['name']}-0-0.{name}"
    assert env["COORDINATOR"].split(":")[0] == address
    assert [str(port["containerPort"]) for port in container["ports"]] == [
        env["COORDINATOR"].split(":")[1]
    ]
    assert env["PROCESSES"] == str(job["completions"])
    options = check_train(container["command"])
    assert options["coordinator"] == "$(COORDINATOR)"
    assert options["processes"] == "$(PROCESSES)"
    assert options["process"] == "$(JOB_COMPLETION_INDEX)"
    assert options["workdir"].startswith("gs://")  # all hosts share it
    assert (options["wandb"], env["WANDB"]) == ("$(WANDB)", "")


def test_skypilot():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task.keys() == {*("name", "num_nodes", "resources", "envs", "workdir", "setup", "run")}
    assert task["num_nodes"] > 1
    assert re.fullmatch(r"\w+:\d+", task["resources"]["accelerators"])
    assert task["resources"]["job_recovery"]["max_restarts_on_errors"] > 0
    assert task["envs"]["BUCKET"] is None  # SkyPilot asks for it
    given = ("SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK")
    names = [*task["envs"], *given]
    header = "#!/bin/bash\n" + "".join(f"export {name}=x\n" for name in names)
    for part in ("setup", "run"):
        shellcheck("-", script=header + task[part])


@pytest.fixture
def run(tmp_path):
    """Run a recipe with stand-ins: satmip prints its arguments, srun and gcloud run it here."""
    checkout = tmp_path / "satmip_jax"
    fakes = {
        checkout / ".venv/bin/satmip": 'printf "%s|" "$@"; echo; echo "$JAX_LOCAL_DEVICE_IDS"',
        tmp_path / "bin/srun": 'shift; exec "$@"',
        tmp_path / "bin/gcloud": 'for last in "$@"; do :; done; exec bash -c "${last#--command=}"',
    }
    for path, script in fakes.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    def run(script: str, *arguments: str, **environment: str) -> list[str]:
        result = subprocess.run(
            ["bash", "-euc", script, "job", *arguments],
            env=os.environ | {"PATH": path, "HOME": str(tmp_path)} | environment,
            cwd=checkout,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    return run


FLAGS = ["--config", "configs/fmow.py:satmips,s16", "--workdir", "a folder"]


def test_skypilot_starts_the_command(run):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    environment = {name: value for name, value in task["envs"].items() if value}
    environment |= {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    environment["BUCKET"] = "gs://mine"
    printed = run(task["run"], SKYPILOT_NODE_RANK="1", **environment)
    options = check_train(["satmip", *printed[0].split("|")[:-1]])
    found = [options[name] for name in ("coordinator", "processes", "process")]
    assert found == ["10.0.0.1:8476", "2", "1"]
    assert options["workdir"] == "gs://mine/runs/fmow"


def test_slurm_starts_the_command_on_all_devices_of_a_node(run):
    script = (LAUNCH / "slurm.sbatch").read_text()
    command, devices = run(script, *FLAGS, SLURM_GPUS_ON_NODE="4", SLURM_JOB_ID="7")
    assert command.split("|")[:-1] == ["train", *FLAGS]
    assert devices == "0,1,2,3"


@pytest.mark.parametrize("name", ["slurm.sbatch", "skypilot.yaml"])
def test_recipes_for_gpus_send_gradients_as_doctor_advises(name):
    assert f'export XLA_FLAGS="{SMALL_GROUPS} ' in (LAUNCH / name).read_text()


def test_tpu_pod_starts_the_command_and_shows_its_log(run):
    script = (LAUNCH / "tpu_pod.sh").read_text()
    command, _ = run(script, *FLAGS, TPU="slice", ZONE="zone", JAX_LOCAL_DEVICE_IDS="-")
    assert command.split("|")[:-1] == ["train", *FLAGS]


def test_an_environment_of_another_python_is_not_used(tmp_path):
    for path, version in (("venv/bin/python", "3.11"), ("python3.13", "3.13")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / path).chmod(0o755)
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "venv/.installed-requirements.txt").write_text("")  # all is installed

    def setup(python: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [
                "bash",
                "-euc",
                'source "$0" requirements.txt; echo "uses $venv"',
                LAUNCH / "setup.sh",
            ],
            env=os.environ | {"PYTHON": python, "VENV": "venv"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    refused = setup("./python3.13")
    assert refused.returncode == 1
    assert "venv has Python 3.11, and PYTHON=./python3.13 is another" in refused.stderr
    assert setup("venv/bin/python").stdout == "uses venv\n"
    assert setup("").stdout == "uses venv\n"


def test_a_project_of_weights_and_biases_is_passed_on(run):
    for recipe in ("slurm.sbatch", "tpu_pod.sh"):
        environment = {"TPU": "slice", "ZONE": "zone", "SLURM_GPUS_ON_NODE": "4"}
        command, *_ = run((LAUNCH / recipe).read_text(), *FLAGS, WANDB="my project", **environment)
        assert command.split("|")[:-1] == ["train", *FLAGS, "--wandb", "my project"], recipe


def test_image():
    """The instructions of the Dockerfile that the checkout can falsify; no image is built."""
    text = re.sub(r"\\\n\s*", " ", (LAUNCH / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    instructions = [line.split(maxsplit=1) for line in lines]
    assert instructions[0] == ["FROM", "python:3.11-slim"]
    assert {name for name, _ in instructions} <= {
        "FROM",
        "RUN",
        "ARG",
        "ENV",
        "WORKDIR",
        "COPY",
        "CMD",
    }
    for name, rest in instructions:
        if name == "RUN":
            shellcheck(
                "-", script=f'#!/bin/sh\nACCELERATOR=${{1:-gpu}}\n: "$ACCELERATOR"\n{rest}\n'
            )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (install,) = (rest for name, rest in instructions if name == "RUN" and "pip" in rest)
    (extras,) = re.findall(r"\.\[(.*?)\]", install)
    for accelerator in ("gpu", "tpu"):
        wanted = extras.replace("${ACCELERATOR}", accelerator).split(",")
        assert set(wanted) <= project["optional-dependencies"].keys()
    ignored = (LAUNCH / "Dockerfile.dockerignore").read_text().split()
    needed = {"pyproject.toml", project["readme"], "LICENSE", "satmip_jax", "configs", "launch"}
    assert not needed & set(ignored)  # of the build, and of the commands of the recipes
    assert all((REPOSITORY / name).exists() for name in needed)
