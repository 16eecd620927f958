"""The files of the paper's comparison: tables, figures, verdicts and the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.report.page import write_report
from satmip_jax.report.paper import PAPER_FILE
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import AnyPath, make_folder
from satmip_jax.studies import plot
from satmip_jax.studies.claims import CONFIDENCE
from satmip_jax.studies.paper import figures
from satmip_jax.studies.paper.claims import Judgement, judge_claims
from satmip_jax.studies.paper.scores import METRIC, PaperScores
from satmip_jax.studies.paper.tables import PaperTable, paper_tables
from satmip_jax.studies.tracker import StudyTracker

NOTE = (
    f"A verdict is confirmed or refuted if the {CONFIDENCE:.0%} interval of the difference by seed "
    "(Student's t over paired seeds) lies within or outside of what the claim says, and undecided "
    "otherwise, as with one seed. Intervals are not corrected for the number of claims. Intervals "
    "of time are quartiles over the rounds; memory is that of the compiled step, and certain. Of "
    "a claim about several groups of fields, the least favourable difference is shown. "
    "The paper's numbers are of fMoW-RGB with its recipe, which is not known."
)


@dataclass(frozen=True)
class ClaimRow:
    """A line of the table of claims, as text."""

    claim: str
    verdict: str
    ours: str
    published: str
    note: str


def claim_row(judgement: Judgement) -> ClaimRow:
    """Return a judgement as text."""
    ours = published = ""
    note = "; ".join(judgement.reasons)
    if judgement.comparison is not None and judgement.published is not None:
        interval = judgement.comparison.interval
        number = _ratio if judgement.is_ratio else _points
        ours = number(interval.mean)
        if interval.low is not None and interval.high is not None:
            low, high = number(interval.low), number(interval.high)
            ours += f" ({low} to {high})" if interval.low != interval.high else ""
        else:
            ours += ", one seed"
        published = number(judgement.published)
        if len(judgement.published_values) > 1:
            published += " ({:.1f} and {:.1f})".format(*judgement.published_values)
        compared = "" if judgement.is_ratio else judgement.comparison.label
        note = "; ".join(filter(None, [compared, note]))
    return ClaimRow(judgement.claim.statement, judgement.verdict, ours, published, note)


def _points(value: float) -> str:
    return f"{value:+.1f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def write_results(
    folder: AnyPath, scores: PaperScores, trackers: Sequence[StudyTracker]
) -> list[Judgement]:
    """Write tables, figures, verdicts and the page of what is measured so far; return the verdicts.

    Args:
        folder: of the comparison.
        scores: of its parts.
        trackers: of its parts.
    """
    judgements, tables = judge_claims(scores), paper_tables(scores)
    if not is_main_process():
        return judgements
    for name in ("tables", "figures"):
        make_folder(folder / name)
    for table in tables:
        write_atomically(folder / "tables" / f"{table.name}.md", table.markdown())
        write_atomically(folder / "tables" / f"{table.name}.csv", table.csv())
        for form, content in plot.in_formats(partial(figures.draw, table)).items():
            write_atomically(folder / "figures" / f"{table.name}.{form}", content)
    rows = [claim_row(judgement) for judgement in judgements]
    records = [judgement.record() for judgement in judgements]
    write_atomically(folder / "claims.json", json.dumps(records, indent=1) + "\n")
    write_atomically(folder / "claims.md", claims_markdown(rows, tables, scores))
    facts = {
        "trained_on": scores.home,
        "transfer": list(scores.transfers),
        "score": f"{METRIC}, {scores.protocol}",
        "seeds": list(trackers[0].seeds),
        "machines": trackers[0].environments,
        "claims": [asdict(row) for row in rows],
        "note": NOTE,
        "tables": [table.record() for table in tables],
        "parts": [tracker.folder.name for tracker in trackers],
    }
    write_atomically(folder / PAPER_FILE, json.dumps(facts, indent=1) + "\n")
    write_report([folder, *(tracker.folder for tracker in trackers)], folder / "report.html")
    return judgements


def claims_markdown(
    rows: Sequence[ClaimRow], tables: Sequence[PaperTable], scores: PaperScores
) -> str:
    """Return verdicts and tables in Markdown."""
    head = ("claim of the paper", "verdict", "ours (95 % interval)", "paper", "compared")
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head))]
    lines += [f"| {r.claim} | {r.verdict} | {r.ours} | {r.published} | {r.note} |" for r in rows]
    title = f"# The paper's claims on {scores.home}\n\n"
    score = f"Scores are macro F1 in percent by `{scores.protocol}`; differences are points. "
    body = [title + score + NOTE + "\n\n" + "\n".join(lines) + "\n"]
    return "\n".join([*body, *(table.markdown() for table in tables)])
