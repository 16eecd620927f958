"""Records as arrays."""

from datetime import UTC, datetime

import numpy as np
import pytest

from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, select_fields
from satmip_jax.metadata.kinds import Timestamp
from satmip_jax.metadata.record import Metadata
from tests.metadata.records import F32, RECORDS, SCHEMA


def test_encode_layout():
    slices, columns = tabular.value_slices(), tabular.category_index()
    assert [s.stop - s.start for s in slices.values()] == [2, 1, 2, 3, 2, 1, 3, 1, 1, 1, 1]
    assert list(columns) == ["utm_zone", "country_code", "scan_direction", "sensor_platform"]
    arrays = tabular.encode(RECORDS, SCHEMA)
    assert {k: (v.dtype, v.shape) for k, v in arrays.items()} == {
        "values": (np.float32, (200, 18)),
        "categories": (np.int32, (200, 4)),
        "present": (np.bool_, (200, 15)),
    }
    for row, record in enumerate(RECORDS):
        for f in FIELDS:
            value = record.values.get(f.name)
            assert arrays["present"][row, tabular.field_index()[f.name]] == (value is not None)
            if f.kind.has_vocabulary:
                number = arrays["categories"][row, columns[f.name]]
                assert number == (SCHEMA.fields[f.name].vocabulary.index(value) if value else 0)
            elif not isinstance(f.kind, Timestamp):
                np.testing.assert_array_equal(
                    arrays["values"][row, slices[f.name]], F32(value or (0,) * f.kind.size)
                )


@pytest.mark.parametrize(
    ("moment", "clock"),
    [
        (datetime(2015, 1, 1), (2015, 0, 0)),
        (datetime(2015, 9, 21, 15, 30, 8), (2015, (263 + 55808 / 86400) / 365, 55808 / 86400)),
        (datetime(2016, 12, 31, 12), (2016, 365.5 / 366, 0.5)),
        (datetime(2016, 12, 31, 23, 59, 59, 999999), (2016, 1, 1)),
    ],
)
def test_encode_time(moment, clock):
    arrays = tabular.encode([Metadata({"timestamp": moment.replace(tzinfo=UTC)})], SCHEMA)
    year, season, hour = arrays["values"][0, tabular.value_slices()["timestamp"]]
    assert (year, season, hour) == pytest.approx(clock, rel=1e-6)
    assert 0 <= season < 1
    assert 0 <= hour < 1


def test_a_category_outside_the_vocabulary_is_missing():
    zone = SCHEMA.fields["utm_zone"].vocabulary[0]
    arrays = tabular.encode([Metadata.parse({"country_code": "JPN", "utm_zone": zone})], SCHEMA)
    index = tabular.field_index()
    assert not arrays["present"][0, index["country_code"]]
    assert arrays["present"][0, index["utm_zone"]]
    assert arrays["categories"][0, tabular.category_index()["country_code"]] == 0


def test_fields_that_are_not_selected_are_missing_in_captions_too():
    caption = np.random.default_rng(0).integers(1, 256, (200, 15, 48), np.uint8)
    arrays = tabular.encode(RECORDS, SCHEMA) | {"caption": caption}
    shown = tabular.only(arrays, select_fields("location+gsd"))
    assert shown.keys() == arrays.keys()
    for name, column in tabular.field_index().items():
        selected = name in ("location", "gsd")
        for key in ("present", "caption"):
            want = arrays[key][:, column] if selected else np.zeros_like(arrays[key][:, column])
            np.testing.assert_array_equal(shown[key][:, column], want, err_msg=name)
