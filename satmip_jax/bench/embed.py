"""`satmip embed`, its parts alone, and a loop of timm on the same weights, decoding included."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satmip_jax.bench.timing import Measurement, over_rounds, time_in_turn
from satmip_jax.inference.embed.inputs import Inputs, open_inputs
from satmip_jax.inference.embed.reader import BatchReader
from satmip_jax.inference.embed.run import embed_files
from satmip_jax.inference.embedding import EmbeddingModel
from satmip_jax.metadata.record import Problems
from satmip_jax.runtime import process_pool, threads

OURS = "satmip embed"


def bench(
    model: EmbeddingModel,
    paths: Sequence[str | os.PathLike[str]],
    *,
    rounds: int,
    rival: Callable[[Inputs], Any] | None = None,
) -> Iterator[Measurement]:
    """Yield the throughput of the command, of its parts alone, and of a rival.

    The command lists its inputs, reads and encodes images and metadata, and writes the file.

    Args:
        model: the model.
        paths: inputs of the command, all of which can be used.
        rounds: rounds of timing, each of all variants in turn.
        rival: embeds the images of the inputs and returns their vectors, to compare with.
    """
    inputs = open_inputs(paths, {})
    count = len(inputs.entries)
    size = model.batch_size
    reader = BatchReader(inputs.sources, model.encoder.stored_size)
    batches = [inputs.entries[start : start + size] for start in range(0, count, size)]
    example = reader(batches[0])

    def command() -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "embeddings.parquet"
            embed_files(model, paths, out, progress=False, announce=lambda _: None)

    def read() -> None:
        for _ in threads.map_in_order(reader, batches, process_pool.cores()):
            pass

    def encode_images() -> None:
        for _ in batches:
            model.encoder.pixels(example.pixels)

    def encode_metadata() -> None:
        for _ in batches:
            model.encoder.metadata(
                example.records, sizes=example.sizes, field_problems=Problems(), progress=False
            )

    functions: dict[str, Callable[[], Any]] = {OURS: command}
    if rival is not None:
        functions["timm"] = lambda: rival(inputs)
    functions |= {"reading alone": read, "encoding images alone": encode_images}
    if model.has_metadata:
        functions["encoding metadata alone"] = encode_metadata
    seconds = time_in_turn(functions, rounds)
    facts = {"images": count, "batch": size, "cores": process_pool.cores()}
    for name, measured in seconds.items():
        rates = [count / second for second in measured]
        yield Measurement(
            "embed", name, "throughput", unit="images/s", facts=facts, **over_rounds(rates)
        )
    if rival is not None:
        ratios = [b / a for a, b in zip(seconds[OURS], seconds["timm"], strict=True)]
        yield Measurement(
            "embed", OURS, "speed relative to timm", unit="", facts=facts, **over_rounds(ratios)
        )
        ours = np.concatenate([model.encoder.pixels(reader(batch).pixels) for batch in batches[:4]])
        theirs = np.asarray(rival(inputs))[: len(ours)]
        difference = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        yield Measurement(
            "embed", "timm", "largest difference of a feature", difference, "of the largest"
        )
