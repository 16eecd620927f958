"""Published scores of the paper (Bourcier et al., ECCV 2024), in percent.

F1 on fMoW, and transfer scores on the other data sets, after pretraining on fMoW. Transfer scores
of the main comparison are read off its curves. The paper's recipe, batch size and training length
are unknown, and the runs shown beside these scores were trained on other data. So they indicate
what is possible, not what a run should match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LABEL = "paper (Bourcier et al. 2024), other data/recipe"


@dataclass(frozen=True)
class Published:
    """One published score.

    Attributes:
        method: as `config.method.name`, or the paper's name of a baseline.
        features: "image", "metadata" or "both".
        value: the score, percent.
        deviation: standard deviation over the paper's runs, percent; None if not given.
        experiment: experiment in the paper; recipes differ between experiments.
    """

    method: str
    features: str
    value: float
    deviation: float | None
    experiment: str


TRANSFER = {
    "resisc45": (88.5, 87.5, 89.7),
    "optimal31": (86.0, 84.9, 87.9),
    "ucmerced": (95.0, 95.2, 94.9),
    "fgsc23": (57.3, 56.4, 60.8),
    "eurosat": (94.3, 95.7, 95.1),
    "so2sat": (56.9, 55.9, 57.1),
}
# F1 and its deviation
FMOW = {"simclr": (61.1, 0.6), "satmip": (55.2, 0.2), "satmips": (62.3, 0.0)}
# data set -> method -> from the image, from image and metadata
BIMODAL = {
    "fmow": {"satmip": (59.3, 63.1), "satmips": (65.8, 68.6)},
    "eurosat": {"satmip": (94.5, 95.8), "satmips": (95.8, 96.4)},
}
# data set -> raw fields, untrained encoder, SatMIP's encoder
METADATA = {"fmow": (8.1, 13.9, 27.8), "eurosat": (22.0, 29.7, 48.4)}
MEAN_TRANSFER = {"simclr": 79.7, "satmip": 79.3, "satmips": 80.9}
COST = {"satmip": (0.56, 0.62), "satmips": (1.05, 1.11)}  # time, memory relative to SimCLR
# F1 on fMoW after 1, 2, 4 and 8 units of training
CONVERGENCE = {
    "simclr": (46.1, 50.9, 56.1, 61.1),
    "satmip": (45.7, 50.4, 53.8, 55.2),
    "satmips": (53.9, 57.8, 60.9, 62.3),
}
# SatMIP: fMoW from the image, from image and metadata, mean of the transfer sets
FIELDS = {
    "GSD": (37.4, 40.5, 69.0),
    "Time": (43.7, 46.5, 72.3),
    "Location": (47.1, 53.3, 74.9),
    "Angles": (41.1, 43.4, 71.3),
    "GSD+Time+Location": (50.7, 57.7, 75.8),
    "all": (50.7, 58.0, 75.4),
}


def published(dataset: str) -> list[Published]:
    """Return the paper's scores on a data set; none if the paper does not use it.

    Args:
        dataset: name of the data set, in any spelling.

    Example:
        >>> from satmip_jax.report.published import published
        >>> [row.value for row in published("UC-Merced") if row.method == "satmip"]
        [95.2]
    """
    name = canonical_name(dataset)
    rows = []
    if name == "fmow":
        rows += [Published(m, "image", v, d, "comparison") for m, (v, d) in FMOW.items()]
    elif name in TRANSFER:
        values = zip(FMOW, TRANSFER[name], strict=True)
        rows += [Published(m, "image", value, None, "transfer") for m, value in values]
    for method, (image, both) in BIMODAL.get(name, {}).items():
        rows.append(Published(method, "image", image, None, "bimodal"))
        rows.append(Published(method, "both", both, None, "bimodal"))
    sources = ("raw fields", "satmip (untrained)", "satmip")
    values = zip(sources, METADATA.get(name, ()), strict=False)
    rows += [Published(m, "metadata", value, None, "metadata alone") for m, value in values]
    return rows


def canonical_name(dataset: str) -> str:
    """Return the key of a data set in the tables above.

    Example:
        >>> from satmip_jax.report.published import canonical_name
        >>> canonical_name("RESISC-45"), canonical_name("fMoW-RGB")
        ('resisc45', 'fmow')
    """
    name = re.sub(r"[^a-z0-9]", "", dataset.lower())
    return "fmow" if name == "fmowrgb" else name
