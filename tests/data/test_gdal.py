"""Images opened by many threads: all are read, and the process prints what it printed before."""

import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from satmip_jax.data.gdal import TIFF_DRIVER, open_dataset
from satmip_jax.data.jp2 import DRIVER as JP2_DRIVER
from tests.data.tiffs import write_pages, write_tiff

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


def write_jpeg2000() -> bytes:
    """Return a lossless file with a coordinate system, and without a transform."""
    profile = {"height": 16, "width": 16, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with MemoryFile(ext=".jp2") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(driver=JP2_DRIVER, QUALITY=100, REVERSIBLE="YES", **profile) as dataset:
            dataset.write(PIXELS.transpose(2, 0, 1))
        return bytes(file.getbuffer())


@pytest.mark.parametrize(
    ("driver", "write"), [(TIFF_DRIVER, lambda: PLAIN), (JP2_DRIVER, write_jpeg2000)]
)
def test_files_beside_an_image_change_nothing(driver, write, tmp_path):
    data = write()
    path = tmp_path / "a.image"
    path.write_bytes(data)
    for name in ("a.wld", "a.tfw", "a.j2w"):
        (tmp_path / name).write_text("10\n0\n0\n-10\n500000\n5000000\n")
    (tmp_path / "a.image.ovr").write_bytes(write_tiff(PIXELS[::2, ::2]))
    (tmp_path / "a.image.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="gsd">3</MDI></Metadata>'
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    for source in (data, str(path)):
        with open_dataset(source, driver=driver) as dataset:
            assert dataset.transform.is_identity, dataset.transform
            assert (dataset.nodata, dataset.overviews(1)) == (None, [])
            assert "gsd" not in dataset.tags()
            assert len(dataset.files) == 1
            np.testing.assert_array_equal(dataset.read(), PIXELS.transpose(2, 0, 1))


def test_no_other_format_than_the_named_one_is_opened():
    """GDAL's own formats, such as VRT, name other files that they read."""
    virtual = b"<VRTDataset rasterXSize='4' rasterYSize='4'><VRTRasterBand band='1'/></VRTDataset>"
    with MemoryFile(virtual) as file, pytest.warns(NotGeoreferencedWarning):
        assert file.open().driver == "VRT"
    for data, driver in ((virtual, TIFF_DRIVER), (PLAIN, JP2_DRIVER)):
        with pytest.raises(RasterioError), open_dataset(data, driver=driver):
            pass


def test_a_position_selects_the_page():
    first, second = PIXELS, 255 - PIXELS[:8]
    data = write_pages([first, second])
    offset = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[offset : offset + 2], "little")
    following = offset + 2 + 12 * entries
    offsets = [None, offset, int.from_bytes(data[following : following + 4], "little")]
    for position, expected in zip(offsets, (first, first, second), strict=True):
        with open_dataset(data, position) as dataset:
            np.testing.assert_array_equal(dataset.read(), expected.transpose(2, 0, 1))


def test_filters_that_another_thread_has_put_back_are_no_error():
    found = warnings.catch_warnings()
    found.__enter__()
    opened = open_dataset(PLAIN)
    opened.__enter__()
    found.__exit__()  # without the filter that was added since
    opened.__exit__(None, None, None)


def test_the_last_of_overlapping_images_puts_everything_back():
    before, images = state(), [open_dataset(PLAIN) for _ in range(2)]
    for image in images:
        image.__enter__()
    quiet = state()
    images[1].__exit__(None, None, None)
    assert state() == quiet != before
    images[0].__exit__(None, None, None)
    assert state() == before
