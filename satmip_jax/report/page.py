"""The page: what the folders hold, through `template.html`, into one file that needs no other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jinja2

import satmip_jax
from satmip_jax.checkpoints.manager import CheckpointError
from satmip_jax.data.remote_cache import is_remote
from satmip_jax.data.shard_format import ShardError
from satmip_jax.report import classes, neighbours, retrieval
from satmip_jax.report import data as data_parts
from satmip_jax.report import run as runs
from satmip_jax.report.embeddings import Encoded, encode
from satmip_jax.report.files import ReportError
from satmip_jax.report.run import CONFIG_FILE, Run, read_run
from satmip_jax.report.scores import scores
from satmip_jax.report.section import Part, Section
from satmip_jax.report.study import STUDY_FILE, read_study


def write_report(
    folders: Sequence[str | Path], out: str | Path, *, data: str | Path | None = None
) -> Path:
    """Write one page on runs and studies; return its path.

    Args:
        folders: workdirs of `satmip train` and folders of `satmip study`; several runs are also
            compared.
        out: the page, HTML; its folder is made if need be.
        data: prepared folder to take pictures from, instead of the one in each run's config.

    Raises:
        ReportError: a folder that is neither, or a file in it that cannot be read.
        ShardError: `data` is no prepared data. (Where the folder in a config is not there, the
            page is made without pictures and says so.)

    Example:
        >>> write_report(["runs/simclr", "runs/satmips"], "report.html")
    """
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not paths:
        raise ReportError("nothing to report on: name the folder of a run or a study")
    read = [_read(path, name) for path, name in zip(paths, short_names(paths), strict=True)]
    trained = [item for item in read if isinstance(item, Run)]
    sections = [_compare(trained)] if len(trained) > 1 else []
    for item in read:
        alone = len(trained) == 1
        section = item if isinstance(item, Section) else _describe(item, data, alone=alone)
        sections.append(section)
    mixed = len(read) > 1 and len(trained) < len(read)
    title = f"{len(read)} runs and studies" if mixed else sections[0].title
    return _write(Path(out), title, sections)


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of different paths that tell them apart.

    Example:
        >>> short_names([Path("/a/spatial/simclr"), Path("/a/random/simclr")])
        ['spatial/simclr', 'random/simclr']
    """
    depth, deepest = 1, max(len(path.parts) for path in paths)
    while True:
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names) or depth >= deepest:
            return names
        depth += 1


def _read(path: Path, name: str) -> Run | Section:
    if (path / STUDY_FILE).is_file():
        return read_study(path)
    if (path / CONFIG_FILE).is_file():
        return read_run(path, name)
    raise ReportError(
        f"{path} holds neither {CONFIG_FILE} (a run of `satmip train`) nor {STUDY_FILE} (a study "
        "of `satmip study`): give the folder that was their --workdir or --out"
    )


def _compare(trained: Sequence[Run]) -> Section:
    """Scores and curves of several runs side by side."""
    parts = []
    if any(run.scores for run in trained):
        tables = scores([(run.name, run.scores) for run in trained])
        parts.append(Part("Scores", "scores", tables))
    if pictures := runs.compared_training(trained):
        parts.append(Part("Training", "pictures", pictures))
    return Section(f"{len(trained)} runs compared", parts=parts)


def _describe(run: Run, data: str | Path | None, *, alone: bool) -> Section:
    """All there is on one run."""
    parts: list[Part] = []
    notes: list[str] = []
    if run.scores:
        tables = scores([(run.name, run.scores)])
        if not alone:
            tables = replace(tables, published=())  # they stand beside the comparison
        parts.append(Part("Scores", "scores", tables))
    else:
        notes.append("No scores: `satmip evaluate` has not been run for this workdir.")
    if part := runs.training(run):
        parts.append(part)
    folder = str(data or run.config.data.dir)
    if (encoded := _encode(run, folder, notes, asked_for=data is not None)) is not None:
        parts += _pictures(encoded)
    schema = run.schema or (encoded.queries.dataset.schema if encoded else None)
    if schema is not None:
        prepared = None if is_remote(folder) else Path(folder)
        used, split = runs.fields_used(run), run.config.data.train_split
        known = data_parts.describe(schema, used, split, prepared)
        parts.append(Part("Data", "data", known))
    parts.append(runs.configuration(run))
    facts = runs.facts(run)
    if encoded is not None:
        facts.insert(1, ("parameters", f"{encoded.parameters / 1e6:.2f} million"))
    return Section(
        run.title if alone else f"{run.name}: {run.title}",
        facts=facts,
        parts=parts,
        notes=notes,
    )


def _encode(run: Run, folder: str, notes: list[str], *, asked_for: bool) -> Encoded | None:
    """The run's model on its data; a note where one of the two is not there."""
    why = ""
    if is_remote(folder) and not asked_for:
        # a page is no reason to fetch what somebody else's config names
        why = f"the data are at {folder}, which is fetched only for --data {folder}"
    else:
        try:
            return encode(run, folder)
        except CheckpointError as error:
            why = str(error)
        except ShardError as error:
            if asked_for:
                raise
            why = f"{error}. If the data lie elsewhere now, give their folder as --data"
    notes.append(f"Without pictures, neighbours and maps: {why}.")
    return None


def _pictures(encoded: Encoded) -> list[Part]:
    """What needs the model and the data."""
    parts = []
    if found := classes.classes(encoded):
        parts.append(Part("Classes", "classes", (found, encoded)))
    near = neighbours.neighbours(encoded)
    parts.append(Part("Nearest neighbours", "neighbours", (near, encoded)))
    if matched := retrieval.retrieval(encoded):
        parts.append(Part("Images and metadata", "retrieval", matched))
    if maps := classes.feature_maps(encoded):
        parts.append(Part("Map of the features", "maps", maps))
    if place := classes.places(encoded):
        parts.append(Part("On the ground", "places", place))
    return parts


def _write(out: Path, title: str, sections: Sequence[Section]) -> Path:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("satmip_jax.report").joinpath("template.html").read_text("utf-8")
    html = environment.from_string(source).render(
        title=title, sections=sections, version=satmip_jax.__version__
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out
