"""The parts of the report on a GPU: commands, time limits and needs, the most valuable first."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satmip_jax.errors import SatmipError

CLI = ("-m", "satmip_jax.cli")
SECONDS = "{seconds}"  # in a command: the time that the part has
SPLITS = {"longitude": "split_longitude", "spatial": "split_spatial", "random": "split"}
SIZES = {"s8": "ViT-S/8", "cpu": "small ViT"}  # of configs/eurosat.py
METHODS = ("simclr", "satmip", "satmips")
TORCH = ("torch", "timm")
SHARDS = ("array_record", "tensorflow_datasets")

# a model of a few thousand parameters, for a trial on a CPU
_TINY: tuple[str, ...] = (
    "--config.image.encoder=mu/8",
    "--config.image.size=16",
    "--config.optimizer.batch_size=4",
)
_TINY += ("--config.method.ssl_hidden=16", "--config.metadata.depth=1", "--config.dtype=float32")


class PlanError(SatmipError, ValueError):
    """The folder of --data does not exist, or holds two data sets of one split."""


@dataclass(frozen=True)
class Part:
    """A command with its own result, which is not repeated once it has finished.

    Attributes:
        name: name of its files.
        title: what it measures.
        command: arguments of the Python interpreter.
        limit: seconds after which it is stopped.
        least: seconds below which it is not started.
        modules: packages that it imports, beside those of every part.
        lacks: what else is missing, with what to do; "" if nothing is.
        training: it belongs to the trainings, for which a share of the time is reserved.
        resumes: it continues its own results, so they are kept when it is started again.
        environment: variables of its environment.
    """

    name: str
    title: str
    command: tuple[str, ...]
    limit: int
    least: int
    modules: tuple[str, ...] = ()
    lacks: str = ""
    training: bool = False
    resumes: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """The command as a user would type it."""
        words = (
            ["satmip", *self.command[2:]]
            if self.command[:2] == CLI
            else [
                "python",
                *self.command,
            ]
        )
        return " ".join(words)

    def missing(self) -> str:
        """Return what is missing to run it, "" if nothing is."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        named = f"not installed: {', '.join(absent)}" if absent else ""
        return "; ".join(filter(None, [named, self.lacks]))


def plan(out: Path, data: Path | None, *, tiny: bool = False) -> list[Part]:
    """Return the parts in their order.

    Args:
        out: folder of the report.
        data: folder with EuroSAT: its archives and CSV, or what `satmip prepare` wrote from them.
        tiny: tiny sizes, to try the report on a CPU.

    Raises:
        PlanError: `data` does not exist, or holds two data sets of one split.

    Example:
        >>> from satmip_jax.bench.gpu_plan import plan
        >>> [part.name for part in plan(Path("report"), None)][:3]
        ['step-s16', 'step-b16', 'step-s16-torch']
    """
    return [*_benchmarks(out, tiny), *_trainings(out, data, tiny)]


def _benchmarks(out: Path, tiny: bool) -> list[Part]:
    parts = [_step(out, size, "simclr,satmips", tiny) for size in ("s16", "b16")]
    parts += [_step(out, size, "simclr", tiny, torch=True) for size in ("s16", "b16")]
    sizes = {
        "loss": ("--rows", "64" if tiny else "4096,16384,65536"),
        "augment": ("--batches", "4" if tiny else "256,1024"),
        "knn": ("--banks", "200" if tiny else "10000,50000,200000"),
    }
    extra = {
        "augment": ("--stored", "32", "--size", "16"),
        "knn": ("--queries", "16", "--widths", "8"),
    }
    command: tuple[str, ...]
    for name, size in sizes.items():
        options = (*size, *extra.get(name, ()), "--rounds", "1") if tiny else size
        command = (*CLI, "bench", name, *options, "--out", str(out / f"{name}.jsonl"))
        modules = ("sklearn",) if name == "knn" else ()
        parts.append(Part(name, f"satmip bench {name}", command, 60, 20, modules))
    command = (
        *CLI,
        "bench",
        "kernels",
        "--config",
        "fmow:simclr,s16",
        *_batch("s16", tiny),
    )
    command += ("--trace", str(out / "trace"), "--out", str(out / "kernels.jsonl"))
    parts.append(Part("kernels", "kernels of SimCLR's step, ViT-S/16", command, 120, 30))
    return parts


def _step(out: Path, size: str, methods: str, tiny: bool, torch: bool = False) -> Part:
    name = f"step-{size}-torch" if torch else f"step-{size}"
    command: tuple[str, ...] = (
        *CLI,
        "bench",
        "step",
        "--config",
        f"fmow:{size}",
        "--methods",
        methods,
    )
    command += ("--rounds", "1" if tiny else "5", "--steps", "1" if tiny else "4")
    command += (*_batch(size, tiny), *(("--torch",) if torch else ()))
    return Part(
        name,
        f"training step, ViT-{size[0].upper()}/16" + (", beside PyTorch" if torch else ""),
        (*command, "--out", str(out / f"{name}.jsonl")),
        limit=240 if torch else 180,
        least=60 if torch else 30,
        modules=TORCH if torch else (),
        # JAX would reserve three quarters of the memory, and PyTorch compiles for what is left
        environment=(("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),) if torch else (),
    )


def _batch(size: str, tiny: bool) -> tuple[str, ...]:
    batch = {"s16": 256, "b16": 128}.get(size, 512)
    options = _TINY if tiny else (f"--config.optimizer.batch_size={batch}",)
    return ("--config.data.dir=", *options)


def _trainings(out: Path, data: Path | None, tiny: bool) -> list[Part]:
    folders = {name: out / "data" / name for name in SPLITS}
    prepared = find_prepared(data) if data else {}
    lacks = ""
    if data is None:
        lacks = "no EuroSAT: give its archives and CSV, or prepared folders, with --data DIR"
    elif not prepared and not any([*data.glob("*.zip"), *data.glob("*.csv")]):
        lacks = f"{data} has neither zips of EuroSAT nor folders that `satmip prepare` wrote"
    parts = []
    command: tuple[str, ...]
    for name, column in SPLITS.items():
        if name in prepared or (prepared and not list(data.glob("*.zip") if data else ())):
            continue
        command = (*CLI, "prepare", "eurosat", "--source", str(data), "--split-column", column)
        command += ("--name", f"eurosat_{name}", "--out", str(folders[name]))
        command += ("--limit", "48", "--workers", "0") if tiny else ()
        needs = (*SHARDS, "pyarrow", "cv2")
        title = f"EuroSAT, {name} split, as shards"
        parts.append(Part(f"prepare-{name}", title, command, 90, 15, needs, lacks, True))
    for size in SIZES:
        if tiny and size != "cpu":
            continue
        command = (*CLI, "bench", "step", "--config", f"eurosat:{size}", *_batch(size, tiny))
        command += ("--rounds", "1" if tiny else "3", "--out", str(out / f"step-{size}.jsonl"))
        title = f"training step on EuroSAT, {SIZES[size]}"
        parts.append(Part(f"step-{size}", title, command, 90, 30, (), lacks, True))
    folders |= prepared
    command = ("-m", "satmip_jax.bench.gpu_eurosat", "--out", str(out), "--seconds", SECONDS)
    command += tuple(f"--data={name}={folder}" for name, folder in folders.items())
    command += ("--tiny",) if tiny else ()
    title = "EuroSAT: trainings and scores"
    parts.append(
        Part("eurosat", title, command, 24 * 3600, 45, SHARDS, lacks, training=True, resumes=True)
    )
    return parts


def find_prepared(data: Path) -> dict[str, Path]:
    """Return the prepared EuroSAT folders in `data`, or `data` itself, by their split.

    Args:
        data: a folder. The name of a data set says its split: "longitude" or "spatial" is part of
            it, and otherwise it is random.

    Raises:
        PlanError: the folder does not exist, or two of one split.
    """
    if not data.is_dir():
        raise PlanError(f"--data {data}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted([*data.glob("schema.json"), *data.glob("*/schema.json")]):
        try:
            name = str(json.loads(path.read_text(encoding="utf-8"))["name"])
        except (ValueError, KeyError, TypeError) as error:
            raise PlanError(f"{path} is no schema of prepared data: {error}") from error
        split = next((split for split in SPLITS if split in name), "random")
        if split in found:
            raise PlanError(f"{path.parent} and {found[split]} are both of the {split} split")
        found[split] = path.parent
    return found


def epochs(seconds: float, costs: Sequence[float], *, overhead: float = 12.0) -> int:
    """Return how many epochs of every run fit in a time: 10 to 100.

    Args:
        seconds: time for all runs.
        costs: seconds that one epoch of each run takes.
        overhead: seconds that each run takes besides: compilation and scoring.

    Example:
        >>> from satmip_jax.bench.gpu_plan import epochs
        >>> epochs(3600, [2.0] * 50)
        30
    """
    left = seconds - overhead * len(costs)
    return int(min(100, max(10, left / sum(costs))))
