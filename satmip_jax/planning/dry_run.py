"""Dry run of a training (`satmip doctor`): needs and problems of a config, before money is spent.

The training step is compiled for the planned mesh, on virtual CPU devices if there are too few
real ones, or for an accelerator that is not here, and is never run.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from satmip_jax.config.fields import check_fields, chosen_fields, known_fields
from satmip_jax.config.validation import small_batch_note
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed.device_mesh import (
    describe_mesh,
    describe_rows,
    mesh_advice,
    row_blocks,
    rows_by_process,
)
from satmip_jax.distributed.sharding import check_batch_size, make_mesh, state_sharding
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.schema import Schema
from satmip_jax.planning import forecast_report, memory
from satmip_jax.planning.accelerators import Accelerator
from satmip_jax.planning.advice import TO_FIT, advice
from satmip_jax.planning.collectives import sent_bytes
from satmip_jax.planning.diagnosis import Diagnosis
from satmip_jax.planning.flops import step_flops
from satmip_jax.planning.forecast import forecast
from satmip_jax.planning.planned_devices import planned_devices, planned_hosts
from satmip_jax.planning.topology import topology_devices
from satmip_jax.runtime.paths import AnyPath, absolute, as_path, is_remote
from satmip_jax.training.step import Program, build_program

MAX_VIRTUAL_DEVICES = 2048  # limit of XLA's numbering of the CPU devices of one process
DEVICES_PER_HOST = 8  # assumed when planning for devices that are not here
HOSTS_SHOWN = 4


def diagnose(
    config: ConfigDict,
    *,
    devices: int | None = None,
    hosts: int = 0,
    device_memory: float = 0.0,
    disk: str | Path = ".",
    accelerator: Accelerator | None = None,
    topology: str = "",
    slices: int = 1,
    compiled: bool = True,
) -> Diagnosis:
    """Build and compile the training of a config without running it.

    Args:
        config: of the training.
        devices: number to plan for; None for the present ones.
        hosts: number of machines, one process each; 0 for the present processes or, if `devices`
            is given, one for every 8 of them.
        device_memory: bytes of one device; 0 for what the device reports.
        disk: a folder on the disk that will hold the workdir.
        accelerator: kind of device to compile for; None for the present one.
        topology: of these accelerators, instead of `devices`.
        slices: of TPUs, each of this topology.
        compiled: compile the step; if not, report what is known without XLA's compiler.

    Raises:
        AcceleratorError: the step cannot be compiled for that accelerator or topology.

    Example:
        >>> from satmip_jax.planning.dry_run import diagnose
        >>> diagnose(config).problems
        []
    """
    diagnosis = Diagnosis()
    placed: Sequence[Any]
    if accelerator:
        planned = topology_devices if compiled else planned_devices
        available = placed = planned(accelerator, topology, slices)
        hosts = len({device.process_index for device in placed})
    else:
        available = placed = jax.devices()
        if devices:
            hosts = hosts or math.ceil(devices / DEVICES_PER_HOST)
            placed = planned_hosts(devices, hosts)
        hosts = hosts or jax.process_count()
    try:
        schema, examples = _open_data(config, diagnosis, required=accelerator is None)
        places = make_mesh(placed, fsdp=config.parallel.fsdp)
        mesh = make_mesh(available[:devices], fsdp=config.parallel.fsdp)
        check_batch_size(config.optimizer.batch_size, mesh.size, examples=examples)
        program = build_program(config, schema, examples, mesh)
    except ValueError as error:
        diagnosis.problems.append(str(error))
        return diagnosis
    _add_mesh(diagnosis, program, places)
    _add_batch(diagnosis, program, examples)
    _add_fields(diagnosis, program, examples)
    _add_model(diagnosis, program)
    _add_state(diagnosis, program)
    if not compiled:
        diagnosis.notes.append(
            "the step was not compiled: memory of a step, time and transfers are missing"
        )
    elif accelerator:
        _add_forecast(diagnosis, program, accelerator, topology)
    else:
        _add_device_memory(diagnosis, program, device_memory)
    _add_disk(diagnosis, program, as_path(disk))
    _add_host_memory(diagnosis, program, examples, hosts)
    diagnosis.notes += state_sharding(program.abstract, program.mesh)[1]
    return diagnosis


def _open_data(config: ConfigDict, diagnosis: Diagnosis, *, required: bool) -> tuple[Schema, int]:
    """Return the schema and size of the train split; without data, those of fMoW."""
    dataset = None
    if config.data.dir:
        try:
            dataset = ShardDataset(config.data.dir, config.data.train_split)
            where = f"{dataset.split!r} in {dataset.data_dir}"
            check_fields(config, dataset.schema, where)
        except (ShardError, ConfigError) as error:
            diagnosis.problems.append(str(error))
    elif required:
        diagnosis.problems.append(
            "config.data.dir is empty: give the folder that `satmip prepare` wrote"
        )
    if dataset is None:
        diagnosis.notes.append(
            "planned with the size of fMoW (363,571 images, 62 classes) and no vocabularies: the "
            "numbers of the metadata encoder are slightly too low"
        )
    return memory.schema_of(config, dataset)


def _add_mesh(diagnosis: Diagnosis, program: Program, places: Mesh) -> None:
    """Add the mesh, its networks, and the rows of a batch that each host reads.

    Args:
        diagnosis: to add to.
        program: of the step.
        places: mesh of the planned devices; that of the program may be of virtual ones.
    """
    rows = rows_by_process(places, program.config.optimizer.batch_size)
    diagnosis.add("devices", "number", f"{places.size} x {_device_kind(program.mesh)}")
    diagnosis.add("devices", "mesh", describe_mesh(places))
    diagnosis.add("devices", "hosts", f"{len(rows)}, one process on each")
    for process in list(rows)[:HOSTS_SHOWN]:
        diagnosis.add("devices", f"  host {process} reads", describe_rows(rows[process]))
    if len(rows) > HOSTS_SHOWN:
        diagnosis.add("devices", f"  {len(rows) - HOSTS_SHOWN} more hosts", "the other rows")
    diagnosis.mesh = {
        **places.shape,
        "networks": describe_mesh(places),
        "rows_of_hosts": [row_blocks(mine) for mine in rows.values()],
    }
    if note := mesh_advice(places):
        diagnosis.notes.append(note)


def _add_batch(diagnosis: Diagnosis, program: Program, examples: int) -> None:
    """Add the batch with its true number of negatives, and the length of training."""
    config, mesh = program.config, program.mesh
    batch_size, micro_batch = config.optimizer.batch_size, config.parallel.micro_batch
    local = batch_size // mesh.size
    diagnosis.add("batch", "images", f"{batch_size:,} in total, {local:,} per device")
    if micro_batch:
        parts = local // micro_batch
        diagnosis.add("batch", "micro-batches", f"{parts:,} of {micro_batch:,} images per device")
    negatives = program.method.negatives(batch_size)
    if negatives and (note := small_batch_note(batch_size, examples)):
        diagnosis.notes.append(note)
    for name, count in negatives.items():
        value = f"{count:,} per anchor, exchange {config.parallel.exchange}"
        diagnosis.add("batch", f"negatives, {name}", value)
    diagnosis.add("training", "steps", f"{program.steps:,}, {program.steps * batch_size:,} images")


def _add_fields(diagnosis: Diagnosis, program: Program, examples: int) -> None:
    """Add the metadata fields of the training, and how many images know each."""
    if not known_fields(program.schema):
        return  # no data, or data without metadata
    for name, count in chosen_fields(program.config, program.schema).items():
        diagnosis.add("metadata", name, f"{count:,} of {examples:,} images")


def _add_model(diagnosis: Diagnosis, program: Program) -> None:
    """Add the number of parameters and the FLOPs of a step, in total and by part."""
    counts = {
        name: sum(math.prod(x.shape) for x in jax.tree.leaves(part))
        for name, part in program.abstract.params.items()
    }
    parameters = sum(counts.values())
    diagnosis.add("model", "parameters", f"{parameters / 1e6:.2f} M")
    for name, count in counts.items():
        if count > 1:
            diagnosis.add("model", f"  {name}", f"{count / 1e6:.2f} M")
    parts = step_flops(program)
    flops = sum(parts.values())
    per_device = flops / program.mesh.size
    diagnosis.add("model", "FLOPs of a step", f"{flops:.3g}, {per_device:.3g} per device")
    for name, part in parts.items():
        diagnosis.add("model", f"  {name}", f"{part / flops:.1%}")
    diagnosis.numbers |= {"flops": flops, "parameters": parameters}


def _add_state(diagnosis: Diagnosis, program: Program) -> None:
    """Add what one device holds, as estimated without compiling."""
    config, topic = program.config, "memory per device"
    local = config.optimizer.batch_size // program.mesh.size
    image = _image_bytes(program.schema)
    state = _state_bytes(program.abstract)
    diagnosis.numbers["state_bytes"] = state
    diagnosis.add(topic, "state", f"{_size(state)} (parameters and moments, float32)")
    diagnosis.add(topic, "gradients", _size(state // 3))
    diagnosis.add(topic, "images of a batch", _size(local * image))
    diagnosis.add(topic, "scores of the losses", f"about {_size(memory.score_bytes(program))}")


def _add_forecast(
    diagnosis: Diagnosis, program: Program, accelerator: Accelerator, topology: str
) -> None:
    """Add memory, time and transfers of the step as compiled for an accelerator."""
    found = forecast(program, accelerator, topology)
    diagnosis.forecast = found
    diagnosis.facts += forecast_report.facts(found)
    diagnosis.tables += forecast_report.tables(found)
    diagnosis.notes += advice(found, program.config)
    if accelerator.gpu:
        diagnosis.notes.append(
            "compiled without autotuning, which needs the card: products are cuBLASLt's "
            "(xla_gpu_enable_triton_gemm=false), as it mostly chooses. A bound is not a time: a "
            "step takes longer"
        )
    if not found.fits:
        limit = _size(accelerator.memory)
        needed = f"{_size(found.needed)} and has {limit}" if found.needed else f"more than {limit}"
        diagnosis.problems.append(f"a device needs {needed}: {TO_FIT}")


def _add_device_memory(diagnosis: Diagnosis, program: Program, device_memory: float) -> None:
    """Add what one device needs as compiled, and what it sends."""
    config, topic = program.config, "memory per device"
    compiled = memory.compile_step(program)
    needed = memory.compiled_bytes(compiled)
    if needed is not None:
        temporary = compiled.memory_analysis().temp_size_in_bytes
        value = f"{_size(needed)}, including {_size(temporary)} of temporary arrays"
        diagnosis.add(topic, f"as compiled for {jax.default_backend()}", value)
        diagnosis.numbers |= {"compiled_bytes": needed, "temporary_bytes": temporary}
        _check_device_memory(diagnosis, needed, device_memory)
        if config.data.in_memory:
            examples = program.schema.splits.get(config.data.train_split, 0)
            decoded = _size(examples * _image_bytes(program.schema))
            diagnosis.notes.append(
                f"config.data.in_memory needs {decoded} more on every device, for all {examples:,} "
                f"images of {config.data.train_split!r}"
            )
    for (kind, group), size in sorted(sent_bytes(compiled.as_text()).items()):
        diagnosis.add("sent per device", f"{kind}, groups of {group}", _size(size))
        key = f"sent {kind}"
        diagnosis.numbers[key] = diagnosis.numbers.get(key, 0) + size


def _check_device_memory(diagnosis: Diagnosis, needed: int, device_memory: float) -> None:
    """Add a problem if the compiled step does not fit into a device."""
    limit = device_memory or (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    if limit and needed > limit:
        diagnosis.problems.append(
            f"a device needs {_size(needed)} and has {_size(limit)}: {TO_FIT}"
        )


def _add_disk(diagnosis: Diagnosis, program: Program, folder: AnyPath) -> None:
    """Add the size of checkpoints, and a problem if the disk is too full for them."""
    checkpoint = _state_bytes(program.abstract, sharded=False)
    needed = checkpoint * (program.config.checkpoint.keep + 1)
    diagnosis.add("disk", "one checkpoint", _size(checkpoint))
    if is_remote(folder):
        diagnosis.add("disk", "all checkpoints", f"up to {_size(needed)}, in {folder}")
        return
    free = shutil.disk_usage(folder).free
    diagnosis.add("disk", "all checkpoints", f"up to {_size(needed)}; free: {_size(free)}")
    if needed > free:
        diagnosis.problems.append(
            f"checkpoints need up to {_size(needed)}, and {absolute(folder)} has {_size(free)} "
            "free: free some space, use another workdir or a smaller config.checkpoint.keep"
        )


def _add_host_memory(diagnosis: Diagnosis, program: Program, examples: int, hosts: int) -> None:
    """Add what the process on each host holds."""
    config, topic = program.config, "memory per host"
    image = _image_bytes(program.schema)
    if config.data.in_memory:
        diagnosis.add(topic, "all images, decoded", _size(examples * image))
        return
    batch = config.optimizer.batch_size // hosts * image
    ahead = max(config.data.workers, 1) * 2 + 2
    diagnosis.add(topic, "batches read ahead", f"about {_size(ahead * batch)}")


def _device_kind(mesh: Mesh) -> str:
    return str(mesh.devices.flat[0].device_kind)


def _image_bytes(schema: Schema) -> int:
    """Return the bytes of a decoded stored image."""
    return schema.image_size**2 * 3


def _state_bytes(abstract: Any, *, sharded: bool = True) -> int:
    """Return the bytes of a training state on one device, or of the complete state."""

    def size(x: Any) -> int:
        sharding: NamedSharding = x.sharding
        shape = sharding.shard_shape(x.shape) if sharded else x.shape
        return math.prod(shape) * x.dtype.itemsize

    return sum(map(size, jax.tree.leaves(abstract)))


def _size(size: float) -> str:
    """Format a number of bytes in MiB or GiB."""
    return f"{size / 2**30:,.2f} GiB" if size >= 2**28 else f"{size / 2**20:,.2f} MiB"


def use_virtual_devices(devices: int) -> None:
    """Replace the devices of this process by virtual CPU devices; call it before JAX is used.

    Args:
        devices: how many.

    Raises:
        ConfigError: more than MAX_VIRTUAL_DEVICES.
    """
    if devices > MAX_VIRTUAL_DEVICES:
        raise ConfigError(
            f"--devices is {devices:,}; a plan is limited to {MAX_VIRTUAL_DEVICES:,} devices. "
            "Memory and traffic per device hardly change beyond"
        )
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
