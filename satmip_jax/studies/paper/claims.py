"""The claims of the paper, and the verdict of our runs on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from satmip_jax.report.published import (
    BIMODAL,
    CONVERGENCE,
    COST,
    FIELDS,
    FMOW,
    MEAN_TRANSFER,
    METADATA,
)
from satmip_jax.studies.claims import (
    Comparison,
    Interval,
    Region,
    Verdict,
    judge_all,
    paired_difference,
)
from satmip_jax.studies.paper.scores import (
    HOME,
    LEAK_FREE_KINDS,
    TRANSFER,
    MissingError,
    PaperScores,
    Quantity,
)

MARGIN = 1.0  # points within which one score is as good as another
TOLERANCE = 0.15  # of a relative time or memory
NAMES = {"simclr": "SimCLR", "satmip": "SatMIP", "satmips": "SatMIPS"}
GROUPS = ("GSD", "Time", "Location", "Angles")

_Pair = tuple[Quantity, Quantity | None, float, float | None]  # ours, and the paper's two numbers


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: short, unique.
        statement: what the paper claims, in a sentence.
        region: where each difference (points) or ratio has to lie.
        pairs: (first, second, the paper's first, the paper's second); without a second, the first
            is a ratio. The claim is that every difference lies in the region.
    """

    name: str
    statement: str
    region: Region
    pairs: Sequence[_Pair]


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim.

    Attributes:
        claim: the claim.
        verdict: see `studies.claims`.
        comparison: the measured difference that decides it, points, or ratio; None if there is
            none.
        published: the same difference or ratio of the paper; None if it is not measurable.
        published_values: the numbers of the paper that it is the difference of.
        reasons: of the comparisons that could not be measured.
    """

    claim: Claim
    verdict: Verdict
    comparison: Comparison | None = None
    published: float | None = None
    published_values: tuple[float, ...] = ()
    reasons: Sequence[str] = ()

    @property
    def is_ratio(self) -> bool:
        """Whether the comparison is a ratio, not a difference of scores."""
        return self.claim.pairs[0][1] is None

    def record(self) -> dict[str, Any]:
        """Return the judgement as plain JSON."""
        interval = self.comparison.interval if self.comparison else None
        return {
            "name": self.claim.name,
            "claim": self.claim.statement,
            "verdict": self.verdict,
            "compared": self.comparison.label if self.comparison else "",
            "unit": "ratio" if self.is_ratio else "points",
            "value": interval.mean if interval else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "seeds": interval.seeds if interval else 0,
            "published": self.published,
            "published_values": list(self.published_values),
            "reasons": list(self.reasons),
        }


def judge(claim: Claim, scores: PaperScores) -> Judgement:
    """Return the verdict of the measured scores on a claim."""
    measured: list[tuple[Comparison, tuple[float, ...]]] = []
    reasons = []
    for first, second, *numbers in claim.pairs:
        try:
            comparison = _compare(first, second, scores)
        except MissingError as error:
            reasons.append(str(error))
            continue
        measured.append((comparison, tuple(x for x in numbers if x is not None)))
    verdict, decisive = judge_all(claim.region, [c for c, _ in measured])
    if decisive is None:
        return Judgement(claim, verdict, reasons=list(dict.fromkeys(reasons)))
    values = next(values for comparison, values in measured if comparison is decisive)
    published = values[0] - values[1] if len(values) > 1 else values[0]
    return Judgement(claim, verdict, decisive, published, values, list(dict.fromkeys(reasons)))


def _compare(first: Quantity, second: Quantity | None, scores: PaperScores) -> Comparison:
    if second is None:
        value, low, high = scores.cost(first)
        return Comparison(first.variant, Interval(value, low, high))
    interval = paired_difference(scores.values(first), scores.values(second), scale=100.0)
    if interval is None:
        raise MissingError(f"{first} and {second} have no seed in common")
    return Comparison(f"{first} - {second}", interval)


def judge_claims(scores: PaperScores) -> list[Judgement]:
    """Return the verdicts on all claims of the paper."""
    return [judge(claim, scores) for claim in paper_claims()]


def paper_claims() -> list[Claim]:
    """Return the claims of the paper, with its numbers."""
    return [*_method_claims(), *_cost_claims(), *_metadata_claims(), *_field_claims()]


_HIGHER = Region(low=0.0)
_AS_GOOD = Region(-MARGIN, MARGIN)


def _method_claims() -> list[Claim]:
    satmips, simclr, satmip = (Quantity(name) for name in ("satmips", "simclr", "satmip"))
    half, full = Quantity("satmips-half"), Quantity("simclr-full")
    return [
        Claim(
            "satmips-image",
            "SatMIPS learns better image features than SimCLR",
            _HIGHER,
            [(satmips, simclr, FMOW["satmips"][0], FMOW["simclr"][0])],
        ),
        Claim(
            "satmips-transfer",
            "SatMIPS transfers better than SimCLR, on average",
            _HIGHER,
            [
                (
                    Quantity("satmips", TRANSFER),
                    Quantity("simclr", TRANSFER),
                    MEAN_TRANSFER["satmips"],
                    MEAN_TRANSFER["simclr"],
                )
            ],
        ),
        Claim(
            "satmip-alone",
            "SatMIP alone is behind SimCLR on the data of its training",
            _HIGHER,
            [(simclr, satmip, FMOW["simclr"][0], FMOW["satmip"][0])],
        ),
        Claim(
            "half-schedule",
            f"SatMIPS reaches SimCLR's final score, less {MARGIN:g} point, in half the schedule",
            Region(low=-MARGIN),
            [(half, full, CONVERGENCE["satmips"][2], CONVERGENCE["simclr"][3])],
        ),
    ]


def _cost_claims() -> list[Claim]:
    metrics = {"time": "relative_step_time", "memory": "relative_compiled_memory"}
    claims = []
    for method, costs in COST.items():
        for (what, metric), cost in zip(metrics.items(), costs, strict=True):
            statement = f"{NAMES[method]} takes {cost:g} of SimCLR's {what}, +-{TOLERANCE:g}"
            region = Region(cost - TOLERANCE, cost + TOLERANCE)
            pair = (Quantity(method, cost=metric), None, cost, None)
            claims.append(Claim(f"{method}-{what}", statement, region, [pair]))
    return claims


def _metadata_claims() -> list[Claim]:
    claims = []
    for suffix, where, data, rename in (
        ("", "", HOME, {}),
        ("-leak-free", ", without the fields that reveal the image's size", HOME, LEAK_FREE_KINDS),
        ("-eurosat", ", on EuroSAT", "eurosat", {}),
    ):
        key = "fmow" if data == HOME else data
        both, metadata = (rename.get(kind, kind) for kind in ("both", "metadata"))
        for method, (image, joint) in BIMODAL[key].items():
            pair = (Quantity(method, data, both), Quantity(method, data), joint, image)
            statement = f"Image and metadata together beat the image for {NAMES[method]}{where}"
            claims.append(Claim(f"{method}-both{suffix}", statement, _HIGHER, [pair]))
        raw, untrained, trained = METADATA[key]
        values = {"satmip": trained, "untrained": untrained, "fields": raw, "numbers": raw}
        beats = "An untrained metadata encoder beats"
        for name, first, second, words in (
            ("trained", "satmip", "untrained", "SatMIP's metadata encoder beats an untrained one"),
            ("untrained", "untrained", "fields", f"{beats} the raw fields"),
            # how the paper writes its raw fields is not known
            ("untrained-numbers", "untrained", "numbers", f"{beats} the fields as plain numbers"),
        ):
            one, other = (Quantity(variant, data, metadata) for variant in (first, second))
            pair = (one, other, values[first], values[second])
            claims.append(Claim(f"metadata-{name}{suffix}", words + where, _HIGHER, [pair]))
    return claims


def _field_claims() -> list[Claim]:
    image = {name: values[0] for name, values in FIELDS.items()}

    def pairs(first: str, others: Sequence[str]) -> list[_Pair]:
        return [(Quantity(first), Quantity(o), image[first], image[o]) for o in others]

    return [
        Claim(
            "location-best",
            "Location is the best single group of fields",
            _HIGHER,
            pairs("Location", [group for group in GROUPS if group != "Location"]),
        ),
        Claim("all-fields", "All fields beat every single group", _HIGHER, pairs("all", GROUPS)),
        Claim(
            "three-groups",
            f"GSD, time and location are as good as all fields, within {MARGIN:g} point",
            _AS_GOOD,
            pairs("GSD+Time+Location", ["all"]),
        ),
    ]
