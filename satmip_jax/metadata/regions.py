"""Regions of the world: those of the United Nations (M49).

Source: UN Statistics Division, "Standard country or area codes for statistical use" (M49): 5
regions, and 17 sub-regions with Sub-Saharan Africa and Latin America as one each.

NOTE[DIFF] M49 lacks Taiwan and Kosovo: they are in Eastern Asia and in Southern Europe.
Antarctica has no region, as in M49.
"""

from __future__ import annotations

import functools

_M49: dict[str, dict[str, str]] = {
    "Africa": {
        "Northern Africa": "DZA EGY ESH LBY MAR SDN TUN",
        "Sub-Saharan Africa": (
            "AGO ATF BDI BEN BFA BWA CAF CIV CMR COD COG COM CPV DJI ERI ETH GAB GHA GIN GMB "
            "GNB GNQ IOT KEN LBR LSO MDG MLI MOZ MRT MUS MWI MYT NAM NER NGA REU RWA SEN SHN "
            "SLE SOM SSD STP SWZ SYC TCD TGO TZA UGA ZAF ZMB ZWE"
        ),
    },
    "Americas": {
        "Latin America and the Caribbean": (
            "ABW AIA ARG ATG BES BHS BLM BLZ BOL BRA BRB BVT CHL COL CRI CUB CUW CYM DMA DOM "
            "ECU FLK GLP GRD GTM GUF GUY HND HTI JAM KNA LCA MAF MEX MSR MTQ NIC PAN PER PRI "
            "PRY SGS SLV SUR SXM TCA TTO URY VCT VEN VGB VIR"
        ),
        "Northern America": "BMU CAN GRL SPM USA",
    },
    "Asia": {
        "Central Asia": "KAZ KGZ TJK TKM UZB",
        "Eastern Asia": "CHN HKG JPN KOR MAC MNG PRK TWN",
        "South-eastern Asia": "BRN IDN KHM LAO MMR MYS PHL SGP THA TLS VNM",
        "Southern Asia": "AFG BGD BTN IND IRN LKA MDV NPL PAK",
        "Western Asia": "ARE ARM AZE BHR CYP GEO IRQ ISR JOR KWT LBN OMN PSE QAT SAU SYR TUR YEM",
    },
    "Europe": {
        "Eastern Europe": "BGR BLR CZE HUN MDA POL ROU RUS SVK UKR",
        "Northern Europe": "ALA DNK EST FIN FRO GBR GGY IMN IRL ISL JEY LTU LVA NOR SJM SWE",
        "Southern Europe": "ALB AND BIH ESP GIB GRC HRV ITA MKD MLT MNE PRT SMR SRB SVN VAT XKX",
        "Western Europe": "AUT BEL CHE DEU FRA LIE LUX MCO NLD",
    },
    "Oceania": {
        "Australia and New Zealand": "AUS CCK CXR HMD NFK NZL",
        "Melanesia": "FJI NCL PNG SLB VUT",
        "Micronesia": "FSM GUM KIR MHL MNP NRU PLW UMI",
        "Polynesia": "ASM COK NIU PCN PYF TKL TON TUV WLF WSM",
    },
}


@functools.cache
def _places() -> dict[str, tuple[str, str]]:
    """Country -> region and sub-region."""
    return {
        code: (region, sub_region)
        for region, parts in _M49.items()
        for sub_region, codes in parts.items()
        for code in codes.split()
    }


def region(country: str) -> str:
    """Return the region of a country, "" if it has none.

    Args:
        country: ISO 3166 alpha-3 code.

    Example:
        >>> from satmip_jax.metadata.regions import region, sub_region
        >>> region("PER"), sub_region("PER"), region("ATA")
        ('Americas', 'Latin America and the Caribbean', '')
    """
    return _places().get(country, ("", ""))[0]


def sub_region(country: str) -> str:
    """Return the sub-region of a country, see `region`."""
    return _places().get(country, ("", ""))[1]
