"""So2Sat: HDF5 files as published, and malicious ones."""

import builtins
import pickle
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from satmip_jax.data import images
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import Ref, Source, SourceError, UnreadableExample
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.so2sat import CLASSES, So2Sat, to_rgb

h5py = pytest.importorskip("h5py")


def patches(n: int, seed: int = 0) -> np.ndarray:
    """Smooth reflectances, mostly dark, with some beyond white."""
    rng = np.random.default_rng(seed)
    coarse = rng.exponential(0.12, (n, 4, 4, 10))
    return coarse.repeat(8, 1).repeat(8, 2)


def one_hot(*classes: int) -> np.ndarray:
    return np.eye(17)[list(classes)]


def write(path: Path, sen2: np.ndarray, label: np.ndarray, **options) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("sen1", data=np.zeros((len(sen2), 32, 32, 8)))
        file.create_dataset("sen2", data=sen2, **options)
        file.create_dataset("label", data=label)


@pytest.fixture
def folder(tmp_path):
    """Version 2: three files, of 5, 3 and 2 patches."""
    write(tmp_path / "training.h5", patches(5), one_hot(0, 1, 16, 1, 10))
    write(tmp_path / "validation.h5", patches(3, 1), one_hot(2, 2, 5))
    write(tmp_path / "testing.h5", patches(2, 2), one_hot(9, 4))
    return tmp_path


def test_reads_the_three_files(folder):
    source = open_source("so2sat", [folder])
    assert isinstance(source, Source)
    refs = source.refs()
    assert Counter(ref.split for ref in refs) == {"train": 5, "val": 3, "test": 2}
    assert refs[0].id == "training/000000"
    again = pickle.loads(pickle.dumps(source))
    examples = {ref.id: again.read(ref, Problems()) for ref in refs}
    assert [e.label for e in examples.values()] == [
        CLASSES[i] for i in (0, 1, 16, 1, 10, 2, 2, 5, 9, 4)
    ]
    assert examples["training/000000"].metadata.values == {
        "gsd": (10.0, 10.0),
        "wavelengths": (665.0, 560.0, 490.0),
        "sensor_platform": "SENTINEL2",
    }
    # the PNG holds exactly the pixels: red, green, blue are bands B4, B3, B2
    for number, name in ((4, "training/000004"), (2, "validation/000002")):
        seed = 0 if name.startswith("training") else 1
        stored = images.decode(examples[name].image)
        bands = patches(5 if seed == 0 else 3, seed)[number]
        for channel, band in enumerate((2, 1, 0)):
            expected = [min(255, int(v * 3.5 * 255)) for v in bands[..., band].ravel()]
            assert stored[..., channel].ravel().tolist() == expected


def test_pixels_and_classes_are_those_of_tfds():
    from tensorflow_datasets.datasets.so2sat.so2sat_dataset_builder import _LABELS, _create_rgb

    assert tuple(_LABELS) == CLASSES
    bands = np.random.default_rng(0).normal(0.2, 0.3, (32, 32, 10))
    assert np.array_equal(to_rgb(bands), _create_rgb(bands))
    assert to_rgb(bands).min() == 0
    assert to_rgb(bands).max() == 255


def test_from_files_to_shards(folder):
    out = folder / "out"
    source = So2Sat([folder])
    report = prepare(source, out, image_size=source.image_size, workers=0, progress=False)
    assert report.splits == {"train": 5, "val": 3, "test": 2}
    data = ShardDataset(out, "val")
    assert data[2]["label"] == 5
    assert "validation.h5" in data.schema.provenance["source.splits"]
    stored = images.decode(data[2]["image"]).astype(int)
    assert stored.shape == (32, 32, 3)
    assert np.abs(stored - to_rgb(patches(3, 1)[2])).mean() < 10  # JPEG, of hard edges


def test_version_3_has_two_files(folder):
    (folder / "validation.h5").unlink()
    assert {ref.split for ref in So2Sat([folder]).refs()} == {"train", "test"}
    one = So2Sat([folder / "testing.h5"])
    assert [ref.split for ref in one.refs()] == ["test", "test"]
    assert one.splits_from == "the publisher's files testing.h5"


def test_bad_patches_and_labels_are_counted(tmp_path):
    sen2 = patches(6)
    sen2[1, 3, 3, 2] = np.nan
    sen2[2, 3, 3, 9] = np.inf  # in a band that is not used
    label = one_hot(0, 1, 2, 3, 4, 5)
    label[3] = 0
    label[4] = 1
    label[5] = np.nan
    write(tmp_path / "training.h5", sen2.astype(np.float32), label)
    source = So2Sat([tmp_path])
    report = prepare(source, tmp_path / "out", image_size=32, workers=0, progress=False)
    assert report.splits == {"train": 2}
    assert report.bad_reasons() == {"reflectances that are not finite": 1}
    assert report.skipped == {"label of training.h5 that is not one-hot": 3}
    gone = Ref("training/000099", "train", (str(tmp_path / "training.h5"), 99, CLASSES[0]))
    with pytest.raises(UnreadableExample, match="cannot be read: IndexError"):
        source.read(gone, Problems())


def test_errors_say_what_to_do(folder, monkeypatch):
    with pytest.raises(SourceError, match=r"no So2Sat files in .*training\.h5.*version 3"):
        So2Sat([folder.parent])
    with pytest.raises(SourceError, match=r"two files for train, .*: give one"):
        So2Sat([folder, folder / "training.h5"])
    (folder / "testing.h5").write_bytes((folder / "testing.h5").read_bytes()[:3000])
    with pytest.raises(SourceError, match=r"testing\.h5: cannot be read as HDF5 .*download it"):
        So2Sat([folder])
    (folder / "testing.h5").write_bytes(b"")
    with pytest.raises(SourceError, match=r"testing\.h5: cannot be read as HDF5"):
        So2Sat([folder])
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "h5py")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SourceError, match=r"pip install 'satmip-jax\[so2sat\]'"):
        So2Sat([folder / "training.h5"])


# --- files that mean harm -------------------------------------------------------------------------

SHAPE = (2, 32, 32, 10)


def links(file, elsewhere):
    file["sen2"] = h5py.ExternalLink(str(elsewhere), "/sen2")


def soft_links(file, elsewhere):
    file["x"] = patches(2)
    file["sen2"] = h5py.SoftLink("/x")


def virtual(file, elsewhere):
    layout = h5py.VirtualLayout(SHAPE, "f8")
    layout[:] = h5py.VirtualSource(str(elsewhere), "sen2", SHAPE)
    file.create_virtual_dataset("sen2", layout)


def external_storage(file, elsewhere):
    size = int(np.prod(SHAPE)) * 8
    file.create_dataset("sen2", SHAPE, "f8", external=[(str(elsewhere), 0, size)])


def references(file, elsewhere):
    file.create_dataset("sen2", SHAPE, dtype=h5py.ref_dtype)


def objects(file, elsewhere):
    file.create_dataset("sen2", SHAPE, dtype=h5py.string_dtype())


def group(file, elsewhere):
    file.create_group("sen2")


def too_many(file, elsewhere):
    file.create_dataset("sen2", (10**12, 32, 32, 10), "f8", chunks=(1, 32, 32, 10))


def huge_pieces(file, elsewhere):
    file.create_dataset(
        "sen2", (40_000, 32, 32, 10), "f8", chunks=(40_000, 32, 32, 10), compression="gzip"
    )


def bomb(file, elsewhere):
    """A chunk that decompresses to 2 GB, whatever its declared shape."""
    array = file.create_dataset("sen2", SHAPE, "f8", chunks=(1, 32, 32, 10), compression="gzip")
    packer = zlib.compressobj(9)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    assert len(zlib.decompressobj().decompress(head + 3 * block)) == 3 << 20
    array.id.write_direct_chunk((0, 0, 0, 0), head + 2000 * block + packer.flush())


def plug_in(file, elsewhere):
    file.create_dataset("sen2", data=patches(2), chunks=(1, 32, 32, 10), compression="lzf")


def other_shape(file, elsewhere):
    file["sen2"] = patches(2).transpose(0, 3, 1, 2)


def other_type(file, elsewhere):
    file["sen2"] = np.zeros(SHAPE, np.uint16)


def absent(file, elsewhere):
    pass


def scalar(file, elsewhere):
    file["sen2"] = 1.0


def three(file, elsewhere):
    file["sen2"] = patches(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (links, "'sen2' is a link to elsewhere, which is not followed"),
        (soft_links, "'sen2' is a link to elsewhere, which is not followed"),
        (virtual, "'sen2' has its data in other files, which are not read"),
        (external_storage, "'sen2' has its data in other files, which are not read"),
        (references, "'sen2' has type object, not plain numbers"),
        (objects, "'sen2' has type object, not plain numbers"),
        (group, "'sen2' is not an array"),
        (too_many, "'sen2' has 1,000,000,000,000 patches"),
        (huge_pieces, "'sen2' has chunks of 3,276,800,000 bytes"),
        (bomb, r"'sen2' has chunks of .*h5repack"),
        (plug_in, "'sen2' uses the HDF5 filter 32000"),
        (other_shape, r"'sen2' has shape \(2, 10, 32, 32\), not \(n, 32, 32, 10\)"),
        (other_type, "'sen2' has type uint16, not plain numbers"),
        (absent, "'sen2' is missing: there are label"),
        (scalar, r"'sen2' has shape \(\)"),
        (three, "3 patches and 2 labels"),
    ],
)
def test_malicious_files_are_rejected(tmp_path, make, message):
    elsewhere = tmp_path / "elsewhere.h5"
    write(elsewhere, patches(2), one_hot(0, 1))
    with h5py.File(tmp_path / "training.h5", "w") as file:
        file["label"] = one_hot(0, 1)
        make(file, elsewhere)
    with pytest.raises(SourceError, match=rf"training\.h5: {message}"):
        So2Sat([tmp_path])


def test_usual_compression_is_read(tmp_path):
    expected = [to_rgb(bands) for bands in patches(4)]
    packing = {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}
    write(tmp_path / "training.h5", patches(4), one_hot(0, 1, 2, 3), **packing)
    source = So2Sat([tmp_path])
    stored = [images.decode(source.read(ref, Problems()).image) for ref in source.refs()]
    assert np.array_equal(stored, expected)


def test_damaged_bytes_are_rejected_or_counted(tmp_path):
    packing = {"chunks": (1, 32, 32, 10), "compression": "gzip", "fletcher32": True}
    with h5py.File(tmp_path / "training.h5", "w") as file:
        file.create_dataset("sen2", data=patches(4), **packing)
        file.create_dataset("label", data=one_hot(0, 1, 2, 3), chunks=(2, 17), fletcher32=True)
    whole = (tmp_path / "training.h5").read_bytes()
    rng = np.random.default_rng(0)
    bad = 0
    for i, position in enumerate(rng.integers(0, len(whole), 60)):
        data = bytearray(whole)
        data[position] ^= 255
        (tmp_path / str(i)).mkdir()  # HDF5 caches files that are still open
        (tmp_path / str(i) / "training.h5").write_bytes(data)
        try:
            source = So2Sat([tmp_path / str(i)])
            for ref in source.refs():
                source.read(ref, Problems())
        except (SourceError, UnreadableExample):
            bad += 1
    assert bad > 10  # and nothing else was raised
