"""The report page: folders of runs and studies, rendered into one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike, fspath

import jinja2

import satmip_jax
from satmip_jax.checkpoints.manager import CheckpointError
from satmip_jax.data.shard_format import ShardError
from satmip_jax.evaluation.loading import ModelError
from satmip_jax.report import classes, neighbours, retrieval
from satmip_jax.report import run as runs
from satmip_jax.report.data import data_report
from satmip_jax.report.embeddings import EncodedData, encode
from satmip_jax.report.files import ReportError
from satmip_jax.report.paper import PAPER_FILE, read_paper
from satmip_jax.report.run import CONFIG_FILE, Run, read_run
from satmip_jax.report.scores import scores
from satmip_jax.report.section import Part, Section
from satmip_jax.report.study import STUDY_FILE, read_study
from satmip_jax.report.training import compared_training, training
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import AnyPath, absolute, as_path, is_remote, make_folder
from satmip_jax.runtime.stores import check_access


def write_report(
    folders: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    data: str | PathLike[str] | None = None,
) -> AnyPath:
    """Write one page on runs and studies; return its path.

    Args:
        folders: workdirs of `satmip train` and folders of `satmip study`; several runs are also
            compared with each other.
        out: path of the HTML file; its folder is made if needed.
        data: prepared folder to take images from, instead of the one in each run's config.

    Raises:
        ReportError: a folder that is neither, or a file in it that cannot be read.
        ShardError: `data` is not prepared data. (If the folder in a config is gone, the page has
            no images and a note says why.)

    Example:
        >>> from satmip_jax.report.page import write_report
        >>> write_report([workdir], "report.html").name
        'report.html'
    """
    target = as_path(out)
    paths = list(dict.fromkeys(absolute(as_path(folder)) for folder in folders))
    for path in (target, *paths):
        check_access(path)
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
    if (paths[0] / PAPER_FILE).is_file():
        title = sections[0].title
    return write_page(target, title, sections)


def short_names(paths: Sequence[AnyPath]) -> list[str]:
    """Return the shortest unique endings of different paths.

    Args:
        paths: absolute paths.

    Example:
        >>> from satmip_jax.report.page import short_names
        >>> short_names([Path("/a/spatial/simclr"), Path("/a/random/simclr")])
        ['spatial/simclr', 'random/simclr']
    """
    depth, deepest = 1, max(len(path.parts) for path in paths)
    while True:
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names) or depth >= deepest:
            return names
        depth += 1


def _read(path: AnyPath, name: str) -> Run | Section:
    if (path / PAPER_FILE).is_file():
        return read_paper(path)
    if (path / STUDY_FILE).is_file():
        return read_study(path)
    if (path / CONFIG_FILE).is_file():
        return read_run(path, name)
    raise ReportError(
        f"{path} holds neither {CONFIG_FILE} (written by `satmip train`) nor {STUDY_FILE} (written "
        "by `satmip study`): give a folder that was their --workdir or --out"
    )


def _compare(trained: Sequence[Run]) -> Section:
    """Return the section that compares the scores and curves of several runs."""
    parts = []
    if any(run.scores for run in trained):
        tables = scores([(run.name, run.scores) for run in trained])
        parts.append(Part("Scores", "scores", tables))
    if pictures := compared_training(trained):
        parts.append(Part("Training", "pictures", pictures))
    return Section(f"{len(trained)} runs compared", parts=parts)


def _describe(run: Run, data: str | PathLike[str] | None, *, alone: bool) -> Section:
    """Return the section of a run."""
    parts: list[Part] = []
    notes: list[str] = []
    if run.scores:
        tables = scores([(run.name, run.scores)])
        if not alone:
            tables = replace(tables, published=())  # shown beside the comparison
        parts.append(Part("Scores", "scores", tables))
    else:
        notes.append("No scores yet: run `satmip evaluate` for this workdir.")
    if part := training(run):
        parts.append(part)
    folder = fspath(data or run.config.data.dir)
    if (encoded := _encode(run, folder, notes, explicit=data is not None)) is not None:
        parts += _image_parts(encoded)
    schema = run.schema or (encoded.queries.dataset.schema if encoded else None)
    if schema is not None:
        prepared = None if is_remote(folder) and data is None else as_path(folder)
        used, split = runs.fields_used(run), run.config.data.train_split
        parts.append(Part("Data", "data", data_report(schema, used, split, prepared)))
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


def _encode(run: Run, folder: str, notes: list[str], *, explicit: bool) -> EncodedData | None:
    """Encode the data with the run's model; add a note if either is missing."""
    reason = ""
    if is_remote(folder) and not explicit:
        # never download from an address that an untrusted config names
        reason = f"the data are at {folder}, which is read only with --data {folder}"
    else:
        try:
            return encode(run, folder)
        except (CheckpointError, ModelError) as error:
            reason = str(error)
        except ShardError as error:
            if explicit:
                raise
            reason = f"{error}. If the data have moved, give their folder as --data"
    notes.append(f"No images, neighbours and maps: {reason}.")
    return None


def _image_parts(encoded: EncodedData) -> list[Part]:
    """Return the parts that need the model and the data."""
    parts = []
    if report := classes.class_report(encoded):
        parts.append(Part("Classes", "classes", (report, encoded)))
    examples = neighbours.neighbours(encoded)
    parts.append(Part("Nearest neighbours", "neighbours", (examples, encoded)))
    if retrieved := retrieval.retrieval(encoded):
        parts.append(Part("Image-metadata retrieval", "retrieval", retrieved))
    if pictures := classes.feature_space(encoded):
        parts.append(Part("Feature space", "feature_space", pictures))
    if picture := classes.geography(encoded):
        parts.append(Part("Geography", "geography", picture))
    return parts


def write_page(out: AnyPath, title: str, sections: Sequence[Section]) -> AnyPath:
    """Render sections into one self-contained HTML file; return its path.

    Args:
        out: path of the file; its folder is made if needed.
        title: of the page.
        sections: of the page; all text in them is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("satmip_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        title=title, sections=sections, version=satmip_jax.__version__
    )
    make_folder(out.parent)
    write_atomically(out, html)
    return out
