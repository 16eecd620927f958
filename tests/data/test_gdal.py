"""Images opened by many threads: all are read, and the process prints what it printed before."""

import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning

from satmip_jax.data.gdal import open_dataset
from tests.data.tiffs import write_tiff

PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
PLAIN = write_tiff(PIXELS)  # without a place on the ground: rasterio warns


def state():
    return sys.excepthook, sys.unraisablehook, list(warnings.filters)


def test_threads_read_at_the_same_time_and_leave_warnings_and_hooks_as_they_were():
    def read(i):
        with open_dataset(PLAIN) as dataset:
            time.sleep(0.001 * (i % 3))  # so that the threads leave in another order
            return dataset.read()

    before = state()
    with ThreadPoolExecutor(8) as pool:
        for values in pool.map(read, range(400)):
            np.testing.assert_array_equal(values, PIXELS.transpose(2, 0, 1))
    assert state() == before


def test_the_filters_of_others_stay():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        before = state()
        with open_dataset(PLAIN):
            pass
        assert state() == before
    with open_dataset(PLAIN), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert not any(found[2] is NotGeoreferencedWarning for found in warnings.filters)


def test_only_the_logger_of_rasterio_is_silent_while_an_image_is_open(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: seen.append(kind))
    monkeypatch.setattr(sys, "unraisablehook", lambda event: seen.append(event.exc_type))

    class Failing:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    with open_dataset(PLAIN):
        for error in (ValueError("a bug"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "logger")):
            sys.excepthook(type(error), error, None)
            failing = Failing(error)
            del failing
    assert seen == [ValueError, ValueError]
