"""Shapes of the score matrices of contrastive losses, for the log, FLOPs and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Scores:
    """The score matrix of one contrastive loss over the global batch.

    Entry (i, j) is the scalar product of embedding i of the anchors and embedding j of the
    candidates.

    Attributes:
        rows: anchors.
        columns: candidates that each anchor is scored against.
        width: of the embeddings.
        excluded: columns of a row that are not negatives: the positive, and the anchor itself if
            it is among the candidates.
        directions: 1 if only rows are anchors, as for embeddings scored against themselves; 2 if
            the loss reduces the columns as well, as for pairs of an image and its metadata.
    """

    rows: int
    columns: int
    width: int
    excluded: int = 1
    directions: Literal[1, 2] = 1

    @staticmethod
    def between_pairs(batch_size: int, width: int) -> Scores:
        """Return the scores of `info_nce` and `sigmoid_loss`: embeddings of two kinds.

        Example:
            >>> from satmip_jax.objectives.scores import Scores
            >>> Scores.between_pairs(256, width=512).negatives
            255
        """
        return Scores(batch_size, batch_size, width, directions=2)

    @staticmethod
    def among_views(batch_size: int, width: int) -> Scores:
        """Return the scores of `nt_xent`: both views of all images, against each other.

        Example:
            >>> from satmip_jax.objectives.scores import Scores
            >>> Scores.among_views(256, width=128).negatives
            510
        """
        return Scores(2 * batch_size, 2 * batch_size, width, excluded=2)

    @property
    def negatives(self) -> int:
        """True number of negatives per anchor."""
        return self.columns - self.excluded

    @property
    def flops(self) -> int:
        """FLOPs of computing the matrix once, two for each multiply-add."""
        return 2 * self.rows * self.columns * self.width
