"""Captions of the metadata."""

import functools
import json
from datetime import datetime

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.metadata import caption
from satmip_jax.metadata.caption import BOS, EOS, FRAGMENT, VOCAB_SIZE
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.kinds.numeric import Numbers
from satmip_jax.metadata.record import Metadata
from tests.data.tiny_records import FULL

MAX_LENGTH = caption.max_length(len(FIELDS))
SENTENCES = [
    "gsd 11.5 x 9.13 m; ",
    "multispectral gsd 41.2 m; ",
    "pixel size 0.000103 x 8.23e-05 degrees; ",
    "taken 2015-09-21 at 15:30 UTC; ",
    "longitude -73.3108, latitude -3.7858; ",
    "UTM zone 18M; ",
    "country PER; ",
    "cloud cover 14 percent; ",
    "scan direction Reverse; ",
    "wavelengths 661, 545, 477 nm; ",
    "target azimuth 39.1 degrees; ",
    "sun azimuth 77.3 degrees; ",
    "sun elevation 70.4 degrees; ",
    "off nadir 27.7 degrees; ",
    "sensor GEOEYE01; ",
]


def phrases(row: np.ndarray) -> list[str]:
    """The phrases of one record, from (F, FRAGMENT) bytes."""
    return [bytes(f).rstrip(b"\0").decode("ascii") for f in row]


def naive(texts: list[str], length: int) -> list[int]:
    """The caption of one sample by a plain loop."""
    tokens = [BOS]
    for text in texts:
        for letter in text:
            tokens.append(ord(letter))
    tokens = [*tokens[: length - 1], EOS]
    return tokens + [0] * (length - len(tokens))


@functools.cache
def assembler(**options):
    return jax.jit(functools.partial(caption.assemble, **options))


def random_fragments(seed: int, batch: int, n_fields: int) -> tuple[np.ndarray, list[list[str]]]:
    rng = np.random.default_rng(seed)
    texts = [
        [
            ""
            if rng.uniform() < 0.3
            else "".join(map(chr, rng.integers(32, 127, rng.integers(49))))
            for _ in range(n_fields)
        ]
        for _ in range(batch)
    ]
    raw = b"".join(t.encode().ljust(FRAGMENT, b"\0") for row in texts for t in row)
    return np.frombuffer(raw, np.uint8).reshape(batch, n_fields, FRAGMENT), texts


# --- phrases --------------------------------------------------------------------------------------


def test_phrases_of_the_papers_example():
    rows = caption.fragments([Metadata.parse(FULL), Metadata({})])
    assert rows.shape == (2, 15, FRAGMENT)
    assert rows.dtype == np.uint8
    assert phrases(rows[0]) == SENTENCES
    assert not rows[1].any()


def test_no_records_make_no_phrases():
    assert caption.fragments([]).shape == (0, 15, FRAGMENT)


@pytest.mark.parametrize("end", [0, 1])
def test_the_longest_phrases_of_numbers_are_not_truncated(end):
    """At both ends of every valid range, with every digit the format shows."""
    raw = {
        f.name: [v / 1.0001 for v in f.kind.bounds[end]]
        for f in FIELDS
        if isinstance(f.kind, Numbers)
    }
    raw = {k: v if end else [x * 1.0003 for x in v] for k, v in raw.items()}
    raw |= {"location": [-179.99999, -89.99999], "timestamp": datetime(2100, 12, 31, 23, 59, 59)}
    metadata = Metadata.parse(raw)
    row = caption.fragments([metadata])[0]
    for f, text in zip(FIELDS, phrases(row), strict=True):
        if f.name in metadata.values:
            value = metadata.values[f.name]
            whole = f.phrase.format(*(value if isinstance(value, tuple) else (value,)))
            assert text == whole + "; "


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("W" * 64, "sensor " + "W" * 39 + "; "),  # cut, and still ended
        ("Plé\u0301iades", "sensor Pleiades; "),
        ("衛星 1", "sensor ?? 1; "),
    ],
)
def test_phrases_are_short_ascii(name, phrase):
    row = caption.fragments([Metadata.parse({"sensor_platform": name})])[0]
    assert phrases(row)[14] == phrase


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(categories=("L", "N", "P", "S", "M")), min_size=1, max_size=64))
def test_any_category_makes_a_phrase(name):
    row = caption.fragments([Metadata({"sensor_platform": name})])[0, 14]
    used = np.flatnonzero(row)
    assert used.size == used[-1] + 1 <= FRAGMENT  # no zero inside
    assert ((row[used] >= 32) & (row[used] < 127)).all()
    assert bytes(row[used]).endswith(b"; ")


# --- captions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_fields", [1, 4, 15])
def test_the_longest_caption_of_some_fields_fits(n_fields):
    length = caption.max_length(n_fields)
    rows = np.full((1, n_fields, FRAGMENT), ord("x"), np.uint8)
    tokens = np.asarray(assembler(length=length)(rows))[0]
    assert tokens.tolist() == [BOS, *[ord("x")] * (n_fields * FRAGMENT), EOS]


def test_a_caption_reads_as_its_phrases():
    rows = caption.fragments([Metadata.parse(FULL), Metadata({})])
    tokens = np.asarray(assembler(length=MAX_LENGTH)(rows))
    assert tokens.dtype == np.int32
    assert caption.decode(tokens[0]) == "".join(SENTENCES)
    assert tokens[1].tolist() == [BOS, EOS] + [0] * (MAX_LENGTH - 2)


@pytest.mark.parametrize("length", [2, 3, 40, 200, 5 * FRAGMENT + 2])
def test_captions_are_those_of_a_plain_loop(length):
    rows, texts = random_fragments(length, 40, 5)
    tokens = np.asarray(assembler(length=length)(rows))
    assert tokens.tolist() == [naive(row, length) for row in texts]
    assert tokens.max() < VOCAB_SIZE
    # captions that just fit, or are one token too long
    exact = max(len("".join(row)) for row in texts) + 2
    for n in (exact, exact - 1):
        got = caption.assemble(jnp.asarray(rows), length=n).tolist()
        assert got == [naive(row, n) for row in texts]


def test_shuffled_captions_hold_the_same_phrases_in_random_order():
    rows = np.repeat(caption.fragments([Metadata.parse(FULL)]), 64, 0)
    shuffle = assembler(length=MAX_LENGTH, shuffle=True)
    tokens = shuffle(rows, jax.random.key(0))
    captions = [caption.decode(t) for t in np.asarray(tokens)]
    for text in captions:
        assert sorted(text.split("; ")[:-1]) == sorted(s[:-2] for s in SENTENCES)
    assert len(set(captions)) == 64
    # every field comes first about as often as any other: 64 draws of 15
    assert len({text.split("; ")[0] for text in captions}) > 8
    assert shuffle(rows, jax.random.key(0)).tolist() == tokens.tolist()
    assert shuffle(rows, jax.random.key(1)).tolist() != tokens.tolist()


def test_shuffled_captions_of_any_phrases_are_complete():
    rows, texts = random_fragments(3, 50, 6)
    tokens = assembler(length=6 * FRAGMENT + 2, shuffle=True)(rows, jax.random.key(3))
    for got, row in zip(np.asarray(tokens), texts, strict=True):
        n = len("".join(row))
        assert got[0] == BOS
        assert got[n + 1] == EOS
        assert not got[n + 2 :].any()
        left = caption.decode(got)
        for text in sorted(row, key=len, reverse=True):
            assert text in left
            left = left.replace(text, "", 1)
        assert left == ""


@pytest.mark.parametrize("shuffle", [False, True])
def test_dropped_fields_are_left_out_completely(shuffle):
    rows = np.repeat(caption.fragments([Metadata.parse(FULL)]), 400, 0)
    dropping = assembler(length=MAX_LENGTH, dropout=0.3, shuffle=shuffle)
    tokens = np.asarray(dropping(rows, jax.random.key(0)))
    kept = np.zeros((400, 15), bool)
    for i, got in enumerate(tokens):
        parts = [p + "; " for p in caption.decode(got).split("; ")[:-1]]
        found = [SENTENCES.index(p) for p in parts]
        kept[i, found] = True
        assert len(set(found)) == len(found)
        if not shuffle:
            assert got.tolist() == naive(parts, MAX_LENGTH)
            assert found == sorted(found)
    # 400 draws a field: a standard deviation is 0.023
    assert np.abs(kept.mean(0) - 0.7).max() < 0.1
    assert len({tuple(row) for row in kept}) > 300


def test_a_choice_of_fields():
    rows = caption.fragments([Metadata.parse(FULL)])[:, np.array([6, 0])]
    tokens = caption.assemble(jnp.asarray(rows), length=40)
    assert caption.decode(np.asarray(tokens[0])) == "country PER; gsd 11.5 x 9.13 m; "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "length=1: a caption has at least 2 tokens"),
        ({"length": 9, "dropout": 1.0}, r"dropout=1.0: it must be in \[0, 1\)"),
        ({"length": 9, "dropout": -0.1}, r"dropout=-0.1: it must be in"),
        ({"length": 9, "dropout": 0.1}, "needs a random key"),
        ({"length": 9, "shuffle": True}, "needs a random key"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        caption.assemble(jnp.zeros((1, 15, FRAGMENT), jnp.uint8), **options)


def test_captions_of_real_scenes(real_data):
    """EuroSAT's chips have a location and perhaps a country: captions say nothing else."""
    lines = (real_data / "eurosat" / "eurosat_metadata.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1::10]]
    records = [
        Metadata.parse(
            {
                "location": [row["longitude"], row["latitude"]],
                "country_code": row["country_code"],
            }
        )
        for row in rows
    ]
    tokens = np.asarray(assembler(length=80)(caption.fragments(records)))
    assert len({json.dumps(sorted(r.values)) for r in records}) == 2  # some have no country
    for got, row in zip(tokens, rows, strict=True):
        place = f"longitude {float(row['longitude']):.4f}, latitude {float(row['latitude']):.4f}; "
        country = f"country {row['country_code']}; " if row["country_code"] else ""
        assert caption.decode(got) == place + country
