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


_TRANSFER = {
    "resisc45": (88.5, 87.5, 89.7),
    "optimal31": (86.0, 84.9, 87.9),
    "ucmerced": (95.0, 95.2, 94.9),
    "fgsc23": (57.3, 56.4, 60.8),
    "eurosat": (94.3, 95.7, 95.1),
    "so2sat": (56.9, 55.9, 57.1),
}
_FMOW = {"simclr": (61.1, 0.6), "satmip": (55.2, 0.2), "satmips": (62.3, 0.0)}
_BIMODAL = {
    "fmow": {"satmip": (59.3, 63.1), "satmips": (65.8, 68.6)},
    "eurosat": {"satmip": (94.5, 95.8), "satmips": (95.8, 96.4)},
}
_METADATA = {"fmow": (8.1, 13.9, 27.8), "eurosat": (22.0, 29.7, 48.4)}


def published(dataset: str) -> list[Published]:
    """Return the paper's scores on a data set; none if the paper does not use it.

    Args:
        dataset: name of the data set, in any spelling.

    Example:
        >>> from satmip_jax.report.published import published
        >>> [row.value for row in published("UC-Merced") if row.method == "satmip"]
        [95.2]
    """
    name = re.sub(r"[^a-z0-9]", "", dataset.lower())
    name = "fmow" if name == "fmowrgb" else name
    rows = []
    if name == "fmow":
        rows += [Published(m, "image", v, d, "comparison") for m, (v, d) in _FMOW.items()]
    elif name in _TRANSFER:
        values = zip(_FMOW, _TRANSFER[name], strict=True)
        rows += [Published(m, "image", value, None, "transfer") for m, value in values]
    for method, (image, both) in _BIMODAL.get(name, {}).items():
        rows.append(Published(method, "image", image, None, "bimodal"))
        rows.append(Published(method, "both", both, None, "bimodal"))
    sources = ("raw fields", "satmip (untrained)", "satmip")
    values = zip(sources, _METADATA.get(name, ()), strict=False)
    rows += [Published(m, "metadata", value, None, "metadata alone") for m, value in values]
    return rows
