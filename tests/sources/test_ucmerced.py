"""UC Merced: TIFF files through the class folders' reader, and malicious TIFF files."""

import io
import struct
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satmip_jax.data import images
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import SourceError
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.ucmerced import UCMerced

SOME = ("agricultural", "tenniscourt")


def pixels(seed: int, width: int = 256, height: int = 256) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


def tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF", **options)
    return file.getvalue()


def write(root: Path) -> Path:
    """UCMerced_LandUse.zip with ten images of two classes; one image is not 256x256."""
    path = root / "UCMerced_LandUse.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("UCMerced_LandUse/readme.txt", "hello")
        for c, name in enumerate(SOME):
            for i in range(10):
                height = 247 if (c, i) == (0, 3) else 256
                data = tiff(pixels(10 * c + i, height=height))
                archive.writestr(f"UCMerced_LandUse/Images/{name}/{name}{i:02d}.tif", data)
    return path


def test_classes_are_those_of_tfds():
    from tensorflow_datasets.image_classification.uc_merced import _LABELS

    assert UCMerced.classes == tuple(_LABELS)


def test_from_archive_to_shards(tmp_path):
    source = open_source("ucmerced", [write(tmp_path)], seed=3)
    assert source.image_size == 256
    out = tmp_path / "out"
    report = prepare(source, out, image_size=64, workers=0, progress=False)
    assert report.splits == {"train": 12, "val": 4, "test": 4}
    assert not report.bad
    assert "seed 3" in source.splits_from
    found = {}
    for split in report.splits:
        data = ShardDataset(out, split)
        found |= {record["id"]: record for record in (data[i] for i in range(len(data)))}
    expected = {f"{name}/{name}{i:02d}.tif" for name in SOME for i in range(10)}
    assert found.keys() == expected
    record = found["tenniscourt/tenniscourt07.tif"]
    assert UCMerced.classes[record["label"]] == "tenniscourt"
    stored = images.decode(record["image"]).astype(int)
    shrunk = pixels(17).reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(stored - shrunk).mean() < 3  # as JPEG keeps it
    # 0.3 m per pixel, of 256 pixels shrunk to 64; one image has 247 rows
    np.testing.assert_allclose(record["metadata"].values["gsd"], (1.2, 1.2), rtol=1e-6)
    odd = found["agricultural/agricultural03.tif"]["metadata"].values["gsd"]
    np.testing.assert_allclose(odd, (1.2, 0.3 * 247 / 64), rtol=1e-6)


def test_lists_of_torchgeo_decide(tmp_path):
    write(tmp_path)
    expected = {}
    for split, numbers in {"train": range(6), "val": (6, 7), "test": (8, 9)}.items():
        names = [f"{name}{i:02d}.tif" for name in SOME for i in numbers]
        (tmp_path / f"uc_merced-{split}.txt").write_text("\n".join(names) + "\n")
        expected |= {f"{name[:-6]}/{name}": split for name in names}
    source = UCMerced([tmp_path])
    assert {ref.id: ref.split for ref in source.refs()} == expected
    assert Counter(expected.values()) == {"train": 12, "val": 4, "test": 4}
    with pytest.raises(SourceError, match=r"no uc_merced-train\.txt"):
        UCMerced([tmp_path], splits_folder=tmp_path / "nowhere")


def raw_tiff(*tags: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A TIFF of these tags; a value of -1 points at `data`."""
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, kind, n, start if value < 0 else value)
        for tag, kind, n, value in sorted(tags)
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def plain_tiff(width: int, height: int, data: bytes) -> bytes:
    """Uncompressed RGB of one strip, as UC Merced's files are."""
    bits = [(258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3), (284, 3, 1, 1)]
    strip = [(273, 4, 1, -1), (278, 4, 1, height), (279, 4, 1, len(data))]
    return raw_tiff((256, 4, 1, width), (257, 4, 1, height), *bits, *strip, data=data)


def test_the_same_pixels_in_every_kind_of_tiff():
    array = pixels(5)
    assert np.array_equal(images.decode(plain_tiff(256, 256, array.tobytes())), array)
    for compression in (None, "tiff_lzw", "tiff_deflate", "packbits"):
        assert np.array_equal(images.decode(tiff(array, compression=compression)), array)


HARMFUL = {
    "size beyond the limit": plain_tiff(60_000, 60_000, bytes(12)),
    "impossible side": plain_tiff(2**31, 1, bytes(12)),
    "cut short": tiff(pixels(1))[:9000],
    "strip beyond the end": plain_tiff(256, 256, bytes(12)),
    "no pixels": raw_tiff((256, 4, 1, 256), (257, 4, 1, 256)),
    "tile far larger than the image": raw_tiff(
        *((256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 2)),
        *((277, 3, 1, 3), (322, 4, 1, 2**24), (323, 4, 1, 2**24), (324, 4, 1, -1), (325, 4, 1, 9)),
        data=bytes(9),
    ),
    "directory that points at itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "only a header": b"II*\0",
}


def test_harmful_files_are_counted(tmp_path):
    folder = tmp_path / "UCMerced_LandUse" / "Images" / "beach"
    folder.mkdir(parents=True)
    for i in range(20):
        (folder / f"beach{i:02d}.tif").write_bytes(tiff(pixels(i)))
    for name, data in HARMFUL.items():
        (folder / f"{name}.tif").write_bytes(data)
    source = UCMerced([tmp_path])
    report = prepare(source, tmp_path / "out", image_size=16, workers=0, progress=False)
    assert {id_.partition("/")[2][:-4] for _, id_, _ in report.bad} == set(HARMFUL)
    assert sum(report.splits.values()) == 20
    example = source.read(source.refs()[0], Problems())
    assert example.label == "beach"
