"""Countries: ISO 3166 codes, with withdrawn and common wrong ones, and where countries lie."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

_CELLS = Path(__file__).with_name("country_cells.txt")


@functools.cache
def _countries() -> dict[str, str]:
    """ISO 3166 alpha-3 and alpha-2 codes -> alpha-3."""
    import pycountry  # lazily: it reads its database on first use

    codes = {"XKX": "XKX", "XK": "XKX"}  # Kosovo: user-assigned, used by the World Bank and others
    for country in pycountry.countries:
        codes[country.alpha_3] = codes[country.alpha_2] = country.alpha_3
    return codes


def country_code(text: str) -> str | None:
    """Return the ISO 3166 alpha-3 code of an alpha-3 or alpha-2 code; None if it is unknown.

    Example:
        >>> from satmip_jax.metadata.countries import country_code
        >>> country_code("pe"), country_code("ZZZ")
        ('PER', None)
    """
    return _countries().get(text.upper())


# Codes that ISO 3166 withdrew, with the one country that succeeded, and common wrong ones. Those of
# countries that were divided (YUG, SCG, ANT, SUN, CSK) have no successor: they stay unknown.
OTHER_COUNTRY_CODES = {
    "UK": "GBR",
    "EL": "GRC",
    "ROM": "ROU",
    **dict.fromkeys(("ZAR", "ZR"), "COD"),
    **dict.fromkeys(("TMP", "TP"), "TLS"),
    **dict.fromkeys(("BUR", "BU"), "MMR"),
    **dict.fromkeys(("DDR", "DD"), "DEU"),
    **dict.fromkeys(("YMD", "YD"), "YEM"),
    **dict.fromkeys(("HVO", "HV"), "BFA"),
    **dict.fromkeys(("DHY", "DY"), "BEN"),
    **dict.fromkeys(("RHO", "RH"), "ZWE"),
    **dict.fromkeys(("NHB", "NH"), "VUT"),
    **dict.fromkeys(("VDR", "VD"), "VNM"),
    **dict.fromkeys(("PCZ", "PZ"), "PAN"),
    **dict.fromkeys(("FXX", "FX", "CP"), "FRA"),
    "AFI": "DJI",
    "BYS": "BLR",
    "SKM": "IND",
    **dict.fromkeys(("CTE", "CT"), "KIR"),
    **dict.fromkeys(("ATN", "NQ", "ATB", "BQAQ"), "ATA"),
    **dict.fromkeys(("MID", "MI", "JTN", "JT", "PUS", "PU", "WAK", "WK"), "UMI"),
    **dict.fromkeys(("IC", "EA"), "ESP"),
    **dict.fromkeys(("TA", "AC"), "SHN"),
    "DG": "IOT",
    **dict.fromkeys(("KSV", "RKS"), "XKX"),
    "WBG": "PSE",
    "ADO": "AND",
    "IMY": "IMN",
}


def convert_country(raw: object) -> tuple[object, str] | None:
    """Return the ISO 3166 alpha-3 code of a withdrawn or common wrong one, and a note.

    Example:
        >>> from satmip_jax.metadata.countries import convert_country
        >>> convert_country("uk"), convert_country("YUG")
        (('GBR', 'UK: read as GBR'), None)
    """
    text = raw.strip().upper() if isinstance(raw, str) else ""
    code = OTHER_COUNTRY_CODES.get(text)
    return None if code is None else (code, f"{text}: read as {code}")


# --- places ---------------------------------------------------------------------------------------


@functools.cache
def country_lines() -> dict[str, str]:
    """Country -> its cells, as in the file."""
    lines = _CELLS.read_text(encoding="ascii").splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


@functools.cache
def country_cells(code: str) -> np.ndarray:
    """Return the cells that a country touches and their neighbours: bool (180, 360)."""
    cells = np.zeros((180, 360), bool)
    for row in country_lines()[code].split():
        south, _, runs = row.partition(":")
        for run in runs.split(","):
            first, _, last = run.partition("/")
            cells[int(south) + 90, int(first) + 180 : int(last or first) + 181] = True
    cells[1:] |= cells[:-1].copy()
    cells[:-1] |= cells[1:].copy()
    return cells | np.roll(cells, 1, 1) | np.roll(cells, -1, 1)


def in_cells(cells: np.ndarray, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return whether places in degrees lie in the cells: bool, of their shape."""
    row = np.clip(np.floor(latitude).astype(int) + 90, 0, 179)
    column = (np.floor(longitude).astype(int) + 180) % 360
    inside: np.ndarray = cells[row, column]
    return inside
