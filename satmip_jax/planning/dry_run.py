"""A dry run: what a config will need and what is wrong with it, before money is spent.

The training step is compiled for the mesh that was asked for, on virtual CPU devices where there
are not as many, and nothing of it is run.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed.sharding import make_mesh, state_sharding
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.schema import Schema
from satmip_jax.planning import memory
from satmip_jax.planning.collectives import sent_bytes
from satmip_jax.planning.flops import step_flops
from satmip_jax.training.step import Program, build_program

MAX_VIRTUAL_DEVICES = 2048  # the numbers that XLA's CPU devices of one process can have


@dataclass
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        facts: (topic, what, value) in the order of a table.
        problems: what keeps the training from running.
        notes: what a user may want to change.
        numbers: some of the facts as numbers, by name.
    """

    facts: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        """Print all as a table and two lists."""
        table = Table("", "", "", show_header=False, box=None)
        previous = ""
        for topic, what, value in self.facts:
            table.add_row(f"[bold]{topic}[/bold]" if topic != previous else "", what, value)
            previous = topic
        console.print(table)
        for note in self.notes:
            console.print(f"note: {note}", markup=False)
        for problem in self.problems:
            console.print(f"wrong: {problem}", style="red", markup=False)
        if not self.problems:
            console.print("nothing is wrong", style="green")


def diagnose(
    config: ConfigDict,
    *,
    devices: int | None = None,
    hosts: int = 0,
    device_memory: float = 0.0,
    disk: str | Path = ".",
) -> Diagnosis:
    """Build and compile the training of a config without running it.

    Args:
        config: the training.
        devices: how many to plan for; by default those that there are.
        hosts: on how many machines they are, one process each; 0 for the processes there are, or
            where devices are planned for, one for every 8.
        device_memory: bytes of one device; 0 for what the device tells.
        disk: where the workdir will be.

    Example:
        >>> diagnose(load_config("configs/fmow.py:satmips,s16")).show(Console())
    """
    found = Diagnosis()
    available = jax.devices()
    hosts = hosts or (math.ceil(devices / 8) if devices else jax.process_count())
    devices = devices or len(available)

    def fact(topic: str, what: str, value: str) -> None:
        found.facts.append((topic, what, value))

    try:
        schema, examples = _data(config, found)
        mesh = make_mesh(available[:devices], fsdp=config.parallel.fsdp)
        program = build_program(config, schema, examples, mesh)
    except ValueError as error:
        found.problems.append(str(error))
        return found

    batch_size = config.optimizer.batch_size
    local = batch_size // devices
    kind = available[0].device_kind
    fact("devices", "mesh", f"{devices} x {kind}: {_sizes(mesh)}; {hosts} process(es)")
    micro = config.parallel.micro_batch
    fact("batch", "images", f"{batch_size:,} in all, {local:,} per device")
    if micro:
        fact("batch", "micro-batches", f"{local // micro:,} of {micro:,} images per device")
    for name, count in program.method.negatives(batch_size).items():
        fact("batch", f"negatives, {name}", f"{count:,} per anchor, by {config.parallel.exchange}")
    fact("training", "steps", f"{program.steps:,}, {program.steps * batch_size:,} images")

    abstract = program.abstract
    counts = {
        name: sum(math.prod(x.shape) for x in jax.tree.leaves(part))
        for name, part in abstract.params.items()
    }
    fact("model", "parameters", f"{sum(counts.values()) / 1e6:.2f} M")
    for name, count in counts.items():
        if count > 1:
            fact("model", f"  {name}", f"{count / 1e6:.2f} M")
    flops = step_flops(program)
    total_flops = sum(flops.values())
    fact("model", "FLOPs of a step", f"{total_flops:.3g}, {total_flops / devices:.3g} per device")
    for name, count in flops.items():
        fact("model", f"  {name}", f"{count / total_flops:.1%}")

    whole, state = _bytes(abstract, whole=True), _bytes(abstract)
    _memory(program, found, fact, state, device_memory)
    fact("disk", "a checkpoint", _gib(whole))
    need = whole * (config.checkpoint.keep + 1)
    free = shutil.disk_usage(disk).free
    fact("disk", "checkpoints at most", f"{_gib(need)}; free: {_gib(free)}")
    if need > free:
        found.problems.append(
            f"checkpoints take up to {_gib(need)}, and {Path(disk).resolve()} has {_gib(free)} "
            "free: free some, use another workdir or a smaller config.checkpoint.keep"
        )
    _host(config, schema, examples, hosts, fact)
    found.notes += state_sharding(abstract, program.mesh)[1]
    found.numbers |= {
        "flops": total_flops,
        "state_bytes": state,
        "parameters": sum(counts.values()),
    }
    return found


def _data(config: ConfigDict, found: Diagnosis) -> tuple[Schema, int]:
    """The schema and size of the train split; without data, those of one without metadata."""
    dataset = None
    if config.data.dir:
        try:
            dataset = ShardDataset(config.data.dir, config.data.train_split)
        except ShardError as error:
            found.problems.append(str(error))
    else:
        found.problems.append("config.data.dir is empty: give the folder that `prepare` wrote")
    if dataset is None:
        found.notes.append(
            "planned as for fMoW (363,571 images, 62 classes) without vocabularies: the numbers of "
            "the metadata encoder are a little low"
        )
    return memory.schema_of(config, dataset)


def _memory(
    program: Program,
    found: Diagnosis,
    fact: Callable[[str, str, str], None],
    state: int,
    device_memory: float,
) -> None:
    """What one device holds: by reckoning, and as compiled."""
    config = program.config
    local = config.optimizer.batch_size // program.mesh.size
    topic = "memory per device"
    fact(topic, "state", f"{_gib(state)} (parameters and moments, float32)")
    fact(topic, "gradients", _gib(state // 3))
    fact(topic, "stored images", _gib(local * program.schema.image_size**2 * 3))
    fact(topic, "scores of the losses", f"about {_gib(memory.score_bytes(program))}")

    compiled = memory.compile_step(program)
    needed = memory.compiled_bytes(compiled)
    if needed is not None:
        temporary = compiled.memory_analysis().temp_size_in_bytes
        text = f"{_gib(needed)}, of it temporary {_gib(temporary)}"
        fact(topic, f"as compiled for {jax.default_backend()}", text)
        found.numbers |= {"compiled_bytes": needed, "temporary_bytes": temporary}
        limit = device_memory or (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
        if limit and needed > limit:
            found.problems.append(
                f"a device needs {_gib(needed)} and has {_gib(limit)}: set "
                "config.parallel.micro_batch to encode fewer images at once, "
                "config.parallel.exchange=ring, config.parallel.fsdp to cut up the state, or "
                "config.image.remat=True"
            )
        if config.data.in_memory:
            examples = program.schema.splits.get(config.data.train_split, 0)
            found.notes.append(
                "config.data.in_memory puts "
                f"{_gib(examples * program.schema.image_size**2 * 3)} more on every device"
            )
    for (kind, group), size in sorted(sent_bytes(compiled.as_text()).items()):
        fact("sent per device", f"{kind}, groups of {group}", _gib(size))
        found.numbers[f"sent {kind}"] = found.numbers.get(f"sent {kind}", 0) + size


def _host(
    config: ConfigDict,
    schema: Schema,
    examples: int,
    hosts: int,
    fact: Callable[[str, str, str], None],
) -> None:
    """What the process on each host holds."""
    image = schema.image_size**2 * 3
    if config.data.in_memory:
        fact("memory per host", "all images, decoded", _gib(examples * image))
        return
    batch = config.optimizer.batch_size // hosts * image
    ahead = max(config.data.workers, 1) * 2 + 2
    fact("memory per host", "batches read ahead", f"about {_gib(ahead * batch)}")


def _bytes(abstract: Any, *, whole: bool = False) -> int:
    """Bytes of a state, of all of it or of a device's part."""

    def size(x: Any) -> int:
        sharding: NamedSharding = x.sharding
        shape = x.shape if whole else sharding.shard_shape(x.shape)
        return math.prod(shape) * x.dtype.itemsize

    return sum(map(size, jax.tree.leaves(abstract)))


def _sizes(mesh: Any) -> str:
    return ", ".join(f"{name} {size}" for name, size in mesh.shape.items())


def _gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**28 else f"{size / 2**20:,.2f} MiB"


def use_virtual_devices(devices: int) -> None:
    """Make this process see so many virtual CPU devices; before jax is used.

    Raises:
        ConfigError: more than XLA can number.
    """
    if devices > MAX_VIRTUAL_DEVICES:
        raise ConfigError(
            f"--devices {devices:,}: at most {MAX_VIRTUAL_DEVICES:,} can be planned for here; what "
            "a device holds and sends hardly changes beyond"
        )
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
