"""Statistics of one metadata field in the train split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class FieldStats:
    """Statistics of one field in the train split.

    Attributes:
        count: Number of examples in which it is present.
        mean: Means of the `n_standardized` numbers of its kind, such as the logarithms of a scale
            or the year of a time. 0 if it is never present.
        std: Their standard deviations. 1 if it is never present, or constant.
        vocabulary: Its categories, sorted; an id is a position in it. Empty without categories.
        cut_categories: Number of categories left out of the vocabulary, because they are not
            among the `statistics.MAX_VOCABULARY` most frequent.
        cut_examples: Number of examples with one of these; in them the field counts as missing.
    """

    count: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    vocabulary: tuple[str, ...] = ()
    cut_categories: int = 0
    cut_examples: int = 0

    @classmethod
    def never_present(cls, n_standardized: int) -> FieldStats:
        """Return the statistics of a field that no example has."""
        return cls(mean=(0.0,) * n_standardized, std=(1.0,) * n_standardized)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
