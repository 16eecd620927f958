"""Metadata as text: a phrase per field on the host, a caption of tokens on the device.

The tokens are bytes. Captions are mostly numbers and codes, which a vocabulary learned from prose
would split into pieces anyway, and nothing has to be downloaded.

NOTE[DIFF]: the wording and the tokenizer of the paper are unknown to us. The phrases here are
`Field.phrase`. They describe the stored image: unlike the arrays of `tabular`, they do not follow
the crop of a view.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.kinds import Value
from satmip_jax.metadata.record import Metadata

FRAGMENT = 48  # bytes of a field's phrase, including the separator
SEPARATOR = "; "
PADDING, BOS, EOS = 0, 256, 257
VOCAB_SIZE = 258


def fragments(records: Sequence[Metadata]) -> np.ndarray:
    """Return the phrase of every field as bytes.

    Args:
        records: n records.

    Returns:
        uint8 (n, F, FRAGMENT), F in the order of `FIELDS`: ASCII that ends in `SEPARATOR`,
        truncated or padded with zeros to FRAGMENT bytes; all zero where the field is missing.

    Example:
        >>> from satmip_jax.metadata.caption import decode, fragments
        >>> from satmip_jax.metadata.record import Metadata
        >>> from satmip_jax.metadata.tabular import field_index
        >>> phrases = fragments([Metadata.parse({"cloud_cover": 14})])
        >>> decode(phrases[0, field_index()["cloud_cover"]])
        'cloud cover 14 percent; '
    """
    text = b"".join(_fragment(f, r.values.get(f.name)) for r in records for f in FIELDS)
    return np.frombuffer(text, np.uint8).reshape(len(records), len(FIELDS), FRAGMENT)


def _fragment(f: Field, value: Value | None) -> bytes:
    if value is None:
        return bytes(FRAGMENT)
    phrase = f.kind.format(f.phrase, value)
    # without accents; any other character beyond ASCII becomes a question mark
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", phrase) if not unicodedata.combining(c)
    )
    text = plain[: FRAGMENT - len(SEPARATOR)] + SEPARATOR
    return text.encode("ascii", "replace").ljust(FRAGMENT, b"\0")


def max_length(n_fields: int) -> int:
    """Return the length in tokens of the longest caption of `n_fields` fields.

    Example:
        >>> from satmip_jax.metadata.caption import max_length
        >>> max_length(1)
        50
    """
    return n_fields * FRAGMENT + 2


def assemble(
    fragments: jax.Array,
    key: jax.Array | None = None,
    *,
    length: int,
    dropout: float = 0.0,
    shuffle: bool = False,
) -> jax.Array:
    """Return captions: BOS, the phrases of the fields that are present, EOS, padding.

    Args:
        fragments: uint8 (b, F, L), as from `fragments`, of all or some of the fields.
        key: Random key, from which every sample draws independently; needed with dropout or
            shuffling.
        length: Number of tokens. A longer caption is truncated, and still ends in EOS.
        dropout: Probability of leaving out a field.
        shuffle: Put the phrases in random order; otherwise they keep theirs.

    Returns:
        int32 (b, length) in [0, VOCAB_SIZE): bytes 1-255, BOS 256, EOS 257, padding 0.

    Raises:
        ValueError: A length below 2, a dropout outside [0, 1), or randomness without a key.

    Example:
        >>> from satmip_jax.metadata.caption import assemble, decode, fragments
        >>> from satmip_jax.metadata.record import Metadata
        >>> phrases = fragments([Metadata.parse({"cloud_cover": 14})])
        >>> decode(assemble(jnp.asarray(phrases), length=16)[0])
        'cloud cover 14'
    """
    if length < 2:
        raise ValueError(f"length={length}: a caption has at least 2 tokens, its begin and end")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout={dropout}: it must be in [0, 1)")
    if key is None:
        if dropout or shuffle:
            raise ValueError("dropout or shuffling of the fields of a caption needs a random key")
        key = jax.random.key(0)  # unused

    batch, n_fields, _ = fragments.shape
    used = fragments != 0  # (b, F, L)
    if dropout:
        drop = jax.random.bernoulli(jax.random.fold_in(key, 0), dropout, (batch, n_fields))
        used &= ~drop[..., None]
    sizes = used.sum(-1, dtype=jnp.int32)  # (b, F)
    if shuffle:
        score = jax.random.uniform(jax.random.fold_in(key, 1), (batch, n_fields))
        order = jnp.argsort(score, 1)  # place -> field
        place = jnp.argsort(order, 1)  # field -> place
        ends = jnp.cumsum(jnp.take_along_axis(sizes, order, 1), 1, dtype=jnp.int32)
        ends = jnp.take_along_axis(ends, place, 1)
    else:
        ends = jnp.cumsum(sizes, 1, dtype=jnp.int32)  # (b, F): end of the field's phrase

    # position of each byte, after BOS; unused ones go beyond the end, where mode="drop" drops them
    within = jnp.cumsum(used, 2, dtype=jnp.int32)  # (b, F, L), from 1
    at = jnp.where(used, (ends - sizes)[..., None] + within, length)
    last = jnp.minimum(sizes.sum(1, dtype=jnp.int32) + 1, length - 1)  # (b,): position of EOS

    def write(at: jax.Array, tokens: jax.Array, last: jax.Array) -> jax.Array:
        empty = jnp.zeros(length, jnp.int32).at[0].set(BOS)
        return empty.at[at].set(tokens, mode="drop").at[last].set(EOS)

    tokens = fragments.astype(jnp.int32)
    return jax.vmap(write)(at.reshape(batch, -1), tokens.reshape(batch, -1), last)


def decode(tokens: Sequence[int] | np.ndarray) -> str:
    """Return the text of one caption, for people.

    Example:
        >>> from satmip_jax.metadata.caption import decode
        >>> decode([256, 72, 105, 257, 0])
        'Hi'
    """
    return bytes(int(t) for t in tokens if PADDING < t < BOS).decode("ascii", "replace")
