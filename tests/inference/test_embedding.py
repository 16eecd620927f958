"""Embeddings by `satmip_jax.load`: inputs of all kinds, bad ones among them, and fusion."""

import subprocess
import sys

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import satmip_jax as sm
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation.features import extract
from satmip_jax.evaluation.fusion import fuse, standardize
from satmip_jax.evaluation.joint_space import JointSpaceError
from satmip_jax.evaluation.loading import load_model
from satmip_jax.inference.embedding import EmbeddingError, EmbeddingModel
from satmip_jax.metadata.record import Metadata
from satmip_jax.objectives.simclr import SimCLR
from satmip_jax.training.loop import train

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def workdir(tiny_config, tmp_path_factory):
    """A finished run of a model of all fields."""
    workdir = tmp_path_factory.mktemp("run")
    options = ("--config.metadata.fields=all", "--config.optimizer.images=32")
    train(tiny_config("satmips", *options), workdir)
    return workdir


@pytest.fixture(scope="module")
def model(workdir):
    return sm.load(workdir, batch_size=8)


@pytest.fixture(scope="module")
def examples(tiny_shards_dir):
    """The validation split as JPEG bytes and records."""
    dataset = ShardDataset(tiny_shards_dir, "val")
    return [dataset[i] for i in range(len(dataset))]


def test_features_are_those_of_an_evaluation(workdir, tiny_shards_dir, model, examples, tmp_path):
    paths = []
    for i, example in enumerate(examples):
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(example["image"])
    expected = extract(load_model(workdir), ShardDataset(tiny_shards_dir, "val")).by_kind
    images = model.embed_images(paths)  # 24: three batches
    metadata = model.embed_metadata([example["metadata"] for example in examples])
    assert not model.problems
    np.testing.assert_allclose(images, expected["image"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metadata, expected["metadata"], rtol=1e-4, atol=1e-5)

    bank = expected["image"][:16], expected["metadata"][:16]
    both = model.embed(paths, [example["metadata"] for example in examples], bank=bank, weight=0.5)
    parts = [standardize(known, x)[1] for known, x in zip(bank, (images, metadata), strict=True)]
    np.testing.assert_allclose(both, fuse(*parts, 0.5), rtol=1e-3, atol=1e-3)


def test_files_arrays_and_pil_images_are_one(model, tmp_path):
    pixels = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[:, :, ::-1])
    image = Image.fromarray(pixels)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), pixels, image, image.convert("RGBA")]
    rows = model.embed_images(forms)
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])
    for one in (*forms, pixels[None], iter([pixels])):
        np.testing.assert_allclose(model.embed_images(one), rows[:1], rtol=1e-5, atol=1e-6)
    grey = pixels[:, :, 0]
    np.testing.assert_array_equal(*model.embed_images([grey, np.stack([grey] * 3, 2)]))


def test_a_large_jpeg_is_read_as_prepare_reads_it(model, tmp_path):
    from satmip_jax.data.images import make_square

    smooth = cv2.resize(RNG.integers(0, 256, (9, 11, 3), np.uint8), (411, 307))
    cv2.imwrite(str(tmp_path / "large.jpg"), smooth)
    square = make_square((tmp_path / "large.jpg").read_bytes(), 32)
    a, b = model.embed_images([tmp_path / "large.jpg", np.ascontiguousarray(square.pixels)])
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bad_images_are_named_and_stop_nothing(model, tmp_path, caplog):
    good = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    (tmp_path / "text.jpg").write_text("no image")
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(cv2.imencode(".jpg", good)[1].tobytes()[:-200])
    bad = {
        tmp_path / "missing.png": "No such file",
        tmp_path: "directory",
        tmp_path / "text.jpg": "",
        truncated: "truncated JPEG",
        7: "is a int",
        b"bytes": "is a bytes",
    }
    arrays = [
        (good.astype(np.float32), "is float32, whose scale is unknown"),
        (good.astype(np.uint16), "is uint16"),
        (good[:0], "0 pixels"),
        (np.zeros((4, 4, 5), np.uint8), r"(4, 4, 5)"),
        (Image.fromarray(good[:, :, 0].astype(np.int32)), "mode I"),
    ]
    inputs = [*bad, *(array for array, _ in arrays)]
    mixed = [image for item in inputs for image in (item, good)]
    rows = model.embed_images(mixed)
    assert np.isnan(rows[::2]).all()
    assert np.isfinite(rows[1::2]).all()
    np.testing.assert_allclose(rows[1::2], np.tile(rows[1], (len(inputs), 1)), rtol=1e-5, atol=1e-6)
    assert [problem.index for problem in model.problems] == list(range(0, len(mixed), 2))
    for problem, reason in zip(
        model.problems, [*bad.values(), *(reason for _, reason in arrays)], strict=True
    ):
        assert reason in problem.reason
    assert "11 of 22 images cannot be used" in caplog.text
    model.embed_images([good], progress=False)
    assert not model.problems


def test_any_subset_of_fields_as_mapping_record_or_table(model):
    rows = [
        {"gsd": 0.5, "cloud_cover": 10.0, "timestamp": "2017-03-01T10:00:00Z"},
        {"gsd": 2.0, "timestamp": "2018-07-01T10:00:00Z"},
    ]
    features = model.embed_metadata(rows)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(model.embed_metadata([*map(Metadata.parse, rows)]), features)
    np.testing.assert_array_equal(model.embed_metadata(pa.Table.from_pylist(rows)), features)

    class Frame:  # pandas has NaN where a cell is empty
        def to_dict(self, orient):
            assert orient == "records"
            return [rows[0], {**rows[1], "cloud_cover": float("nan")}]

    np.testing.assert_array_equal(model.embed_metadata(Frame()), features)
    assert not model.field_problems.counts["cloud_cover", "not finite"]
    without = model.embed_metadata(rows, fields="cloud_cover+timestamp")
    assert not np.allclose(without[0], features[0], atol=1e-4)
    few = [{k: v for k, v in row.items() if k != "gsd"} for row in rows]
    np.testing.assert_array_equal(model.embed_metadata(few), without)


def test_bad_records_are_named_and_stop_nothing(model):
    good = {"gsd": 0.5}
    rows = [good, {"gsd": -1}, 3, {}, {"colour": "red"}, {"gsd": 0.5, "cloud_cover": 400}]
    features = model.embed_metadata(rows)
    assert np.isnan(features).all(axis=1).tolist() == [False, True, True, True, True, False]
    np.testing.assert_array_equal(features[5], features[0])
    assert list(map(str, model.problems)) == [
        "record 1: has no usable field",
        "record 2: is a int: expected a mapping from fields to values",
        "record 3: has no usable field",
        "record 4: has no usable field",
    ]
    assert model.field_problems.count("gsd", "out of range") == 1
    assert model.field_problems.count("cloud_cover", "out of range") == 1
    assert model.field_problems.count("colour", "unknown field") == 1


def test_metadata_describe_the_image_as_given(model):
    """An image of twice the stored side has half the ground per pixel."""
    double = model.embed_metadata([{"gsd": 0.5}], image_sizes=[(64, 64)])
    assert not np.allclose(double, model.embed_metadata([{"gsd": 0.5}]), atol=1e-4)
    np.testing.assert_allclose(double, model.embed_metadata([{"gsd": 1.0}]), rtol=1e-5, atol=1e-6)
    sides = [16 * (i + 1) for i in range(20)]  # three batches
    each = model.embed_metadata([{"gsd": 0.5}] * 20, image_sizes=[(side, side) for side in sides])
    want = model.embed_metadata([{"gsd": 0.5 * side / 32} for side in sides])
    np.testing.assert_allclose(each, want, rtol=1e-5, atol=1e-6)
    pixels = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    fused = model.embed([pixels], [{"gsd": 0.5}])
    width = model.embed_images([pixels]).shape[1]
    part = fused[:, width:] * np.linalg.norm(double)
    np.testing.assert_allclose(part, double, rtol=1e-4, atol=1e-5)


def test_an_image_or_a_record_that_cannot_be_used_makes_the_whole_row_nan(model):
    good, record = np.zeros((32, 32, 3), np.uint8), {"gsd": 0.5}
    bank = RNG.normal(size=(9, 32)), RNG.normal(size=(9, 16))
    for options in ({}, {"bank": bank}):
        rows = model.embed([good, "missing.jpg", good], [record, record, {}], **options)
        assert np.isnan(rows).mean(axis=1).tolist() == [0, 1, 1]


def test_similarity_is_the_cosine_of_the_projections(model):
    pixels = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)
    rows = [{"gsd": 0.5}, {"gsd": 4.0}, {}, {"location": [10, 50]}]
    found = model.similarity(pixels, rows)
    assert found.shape == (3, 4)
    assert np.isnan(found[:, 2]).all()
    images, metadata = model.embed_images(pixels), model.embed_metadata(rows)
    np.testing.assert_allclose(model.similarity(images, metadata), found, rtol=1e-5, atol=1e-6)
    heads = (model.model.params[f"heads_{name}"] for name in ("image", "metadata"))
    kernels = [head["linear"]["kernel"] for head in heads]
    a, b = (x @ np.asarray(kernel) for x, kernel in zip((images, metadata), kernels, strict=True))
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    np.testing.assert_allclose(found, a @ b.T / norms, rtol=2e-2, atol=2e-2)  # heads in bfloat16


def test_requests_that_cannot_be_answered(model, monkeypatch):
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(EmbeddingError, match="2 images and 1 records"):
        model.embed(pixels, [{"gsd": 1}])
    with pytest.raises(EmbeddingError, match="1 image sizes for 2 records"):
        model.embed_metadata([{"gsd": 1}] * 2, image_sizes=[(8, 8)])
    with pytest.raises(EmbeddingError, match="batch_size is 0"):
        EmbeddingModel(model.model, batch_size=0)
    assert model.embed_images([]).shape == (0, 32)
    assert model.embed_metadata([]).shape == (0, 16)
    assert SimCLR.joint_heads is None
    monkeypatch.setattr("satmip_jax.objectives.satmips.SatMIPS.joint_heads", None)
    with pytest.raises(JointSpaceError, match="satmips mu/8 does not embed images and metadata in"):
        EmbeddingModel(model.model).similarity(pixels, [{"gsd": 1}])


def test_the_package_imports_nothing_heavy():
    code = "import sys, satmip_jax; assert not {'jax', 'numpy', 'flax'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_locations_are_records_of_a_location_alone(model):
    longitudes, latitudes = np.array([12.5, -70.0, 200.0]), np.array([[41.9], [-33.0]])
    features = model.embed_locations(longitudes, latitudes)
    records = [{"location": [x, y]} for y in latitudes.ravel() for x in longitudes]
    np.testing.assert_array_equal(features, model.embed_metadata(records))
    assert np.ptp(features, axis=0).min() > 0
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


def test_a_gallery_is_encoded_once(model, monkeypatch):
    first = model.embed_locations([1.0, 2.0], 3.0)
    monkeypatch.setattr(model.encoder, "metadata", None)  # not called again
    np.testing.assert_array_equal(model.embed_locations([1.0, 2.0], [3.0, 3.0]), first)
    with pytest.raises(TypeError):
        model.embed_locations([1.0, 2.5], 3.0)


def test_places_off_the_earth_are_named(model):
    features = model.embed_locations([0.0, 0.0], [10.0, 91.0])
    assert np.isfinite(features[0]).all()
    assert np.isnan(features[1]).all()
    assert str(model.problems[0]) == "place 1: 0, 91 is not on Earth"


def test_names_that_are_no_fields_are_listed(model, caplog):
    features = model.embed_metadata({"gsd": 1.0, "locaton": [12.5, 41.9]})
    np.testing.assert_array_equal(features, model.embed_metadata({"gsd": 1.0}))
    assert "unknown fields are ignored: locaton" in caplog.text


def test_a_column_of_paths_is_a_list_of_images(model, tmp_path):
    paths = []
    for value in (20, 200):
        paths.append(str(tmp_path / f"{value}.png"))
        cv2.imwrite(paths[-1], np.full((32, 32, 3), value, np.uint8))
    column = np.array(paths, dtype=object)
    np.testing.assert_array_equal(model.embed_images(column), model.embed_images(paths))


def test_images_at_another_size(workdir, model):
    side = model.image_size
    fine = (np.indices((2 * side, 2 * side)).sum(0) % 2 * 255).astype(np.uint8)  # a chequerboard
    flat = np.full((2 * side, 2 * side), 128, np.uint8)
    larger = sm.load(workdir, batch_size=8, image_size=2 * side)
    assert larger.image_size == 2 * side
    here, there = model.embed_images([fine, flat]), larger.embed_images([fine, flat])
    assert here.shape == there.shape
    assert np.abs(there[0] - there[1]).max() > 10 * np.abs(here[0] - here[1]).max()

    same = sm.load(workdir, batch_size=8, image_size=side)
    np.testing.assert_array_equal(same.embed_images([fine, flat]), here)
    record = {"gsd": 0.5, "location": [1, 2]}
    np.testing.assert_array_equal(larger.embed_metadata(record), model.embed_metadata(record))
    for size in (2 * side + 1, 4):
        with pytest.raises(EmbeddingError, match=f"image_size is {size}: expected a multiple of"):
            sm.load(workdir, image_size=size)
