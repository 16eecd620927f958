"""The fields and selections of them."""

import numpy as np
import pytest

from satmip_jax.metadata.fields import FIELDS, field, groups, select_fields
from satmip_jax.metadata.kinds.numeric import Numbers
from tests.metadata.records import NAMES, SCALES


def test_fields_are_the_fifteen_of_the_paper():
    assert len(FIELDS) == len(set(NAMES)) == 15
    assert set(groups()) == {"GSD", "Time", "Location", "Angles", "Other"}
    assert [f.name for f in FIELDS if f.leak] == SCALES
    for f in FIELDS:
        assert f.kind.has_vocabulary == (f.kind.size == 0)
        if isinstance(f.kind, Numbers):
            low, high = f.kind.bounds
            assert len(low) == len(high) == f.kind.size == f.kind.components
            # a value stored in float32 must still be inside when it is read back
            assert all(float(np.float32(v)) == v for v in (*low, *high))
        else:
            assert f.kind.stored_as_text
            assert f.kind.components == 1


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("all", NAMES),
        ("Location", ["location", "utm_zone", "country_code"]),
        ("cloud_cover+gsd", ["gsd", "cloud_cover"]),
        ("GSD", SCALES),
        ("GSD-leak+gsd", ["gsd"]),
        ("all-leak", [n for n in NAMES if n not in SCALES]),
        ("all-leak-Angles-Other", ["timestamp", "location", "utm_zone", "country_code"]),
        (["Time", "off_nadir_angle", "Time"], ["timestamp", "off_nadir_angle"]),
        ("Time + gsd", ["gsd", "timestamp"]),
    ],
)
def test_select_fields(spec, names):
    assert [f.name for f in select_fields(spec)] == names


def test_unknown_names_and_empty_selections_are_refused():
    with pytest.raises(
        ValueError, match=r"'Angle'.*GSD, Time, Location, Other, Angles.*sensor_platform"
    ):
        select_fields("Time+Angle")
    with pytest.raises(ValueError, match="leaves no field"):
        select_fields("GSD-leak")
    with pytest.raises(ValueError, match="leaves no field"):
        select_fields([])
    with pytest.raises(ValueError, match=r"no metadata field 'sun'; choose from .*sun_azimuth"):
        field("sun")
    assert field("gsd") is FIELDS[0]
