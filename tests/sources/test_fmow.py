"""The fMoW reader: real records, boxes of all kinds, hidden splits."""

import json

import numpy as np
import pytest

from satmip_jax.data.images import make_square
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import SourceError
from satmip_jax.sources.fmow import CLASSES, FMoW, polygon_centre
from satmip_jax.sources.registry import open_source
from tests.sources.fmow_files import box, jpeg, listed, write

# --- real records, by hand ------------------------------------------------------------------------


def assert_values(metadata, expected: dict) -> None:
    assert metadata.values.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, tuple):
            np.testing.assert_allclose(metadata.values[name], value, rtol=1e-9, err_msg=name)
        else:
            assert str(metadata.values[name]) == value, name


def test_fountain_by_hand(real_data, tmp_path):
    """A real record with every field; a generated image has the same size, 977 x 663."""
    folder = tmp_path / "train" / "fountain" / "fountain_514"
    folder.mkdir(parents=True)
    record = (real_data / "fmow" / "fountain_514_1_rgb.json").read_bytes()
    (folder / "fountain_514_1_rgb.json").write_bytes(record)
    (folder / "fountain_514_1_rgb.jpg").write_bytes(jpeg(977, 663))
    source = FMoW([tmp_path])
    (ref,) = source.refs()  # the entry of ID -1 is no label
    assert ref.id == "train/fountain/fountain_514/fountain_514_1_rgb.jpg#47768"
    problems = Problems()
    example = source.read(ref, problems)
    assert problems.to_json() == {}
    assert example.label == "fountain"
    assert example.box == (466, 299, 72, 60)
    whole = {
        "gsd": (0.468074887991, 0.468074887991),
        "multispectral_gsd": (1.87378120422,),
        "pixel_size": (4.597314657113e-06, 4.595430769222e-06),  # width first
        "timestamp": "2012-04-02 10:32:22+00:00",
        # the middle of 8.5808360117899998 .. 8.5853275882099993 and 47.4475... .. 47.4505...
        "location": (8.5830818, 47.4490394778),
        "utm_zone": "32T",
        "country_code": "CHE",
        "cloud_cover": (0.0,),
        "scan_direction": "Reverse",
        "wavelengths": (661.0, 545.0, 477.0),
        "target_azimuth_angle": (31.2082061768,),
        "sun_azimuth_angle": (159.207946777,),
        "sun_elevation_angle": (46.1834640503,),
        "off_nadir_angle": (21.8978748322,),
        "sensor_platform": "GEOEYE01",
    }
    whole["location"] = (8.5830818, (47.447516092500003 + 47.450562863099996) / 2)
    assert_values(example.metadata, whole)

    # Stored: a square of side 72 x 1.5 = 108 around (502, 329), resized to 224.
    square = make_square(example.image, 224, box=example.box, context_ratio=source.context_ratio)
    assert square.region == (448, 275, 108, 108)
    stored = example.metadata.crop_resize(square.region, square.source_size, 224)
    f = 108 / 224
    # (502, 329) lies 13.5 pixels to the right of the centre (488.5, 331.5), and 2.5 above it
    longitude = 8.5830818 + 13.5 * 4.597314657113e-06
    latitude = whole["location"][1] + 2.5 * 4.595430769222e-06
    assert_values(
        stored,
        whole
        | {
            "gsd": (0.468074887991 * f,) * 2,
            "multispectral_gsd": (1.87378120422 * f,),
            "pixel_size": (4.597314657113e-06 * f, 4.595430769222e-06 * f),
            "location": (longitude, latitude),
        },
    )
    # Independent check: the annotator's polygon of the box, to within a metre.
    polygon = json.loads(record)["bounding_boxes"][0]["raw_location"]
    np.testing.assert_allclose((longitude, latitude), polygon_centre(polygon), rtol=0, atol=1e-5)


def test_flooding_by_hand(real_data):
    source = FMoW([real_data / "worldview"], classes="folders")
    refs = source.refs()
    assert len(refs) == 26
    assert source.classes == ("flooding", "volcano")
    problems = Problems()
    examples = {ref.id: source.read(ref, problems) for ref in refs}
    example = examples["train/flooding/flooding_0/flooding_0_0_rgb.jpg#22"]
    assert example.label == "flooding"
    assert example.box == (128, 128, 768, 768)
    whole = {
        "gsd": (0.52282465, 0.52282465),
        "multispectral_gsd": (2.0916247,),
        "pixel_size": (5.7061132702663744e-06, 4.696592256557672e-06),
        "timestamp": "2018-09-20 16:04:41+00:00",
        "location": ((-77.86816262 - 77.86231956) / 2, (34.60320218 + 34.60801149) / 2),
        "utm_zone": "18S",
        "country_code": "USA",
        "target_azimuth_angle": (190.82309,),
        "sun_azimuth_angle": (153.94543,),
        "sun_elevation_angle": (53.722378,),
        "off_nadir_angle": (28.017313,),
        "sensor_platform": "GEOEYE01",
    }
    assert_values(example.metadata, whole)
    assert problems.count("cloud_cover", "missing") == 26
    # 768 x 1.5 is more than the image: all of it, 1024 -> 224
    square = make_square(example.image, 224, box=example.box, context_ratio=source.context_ratio)
    assert square.region == (0, 0, 1024, 1024)
    stored = example.metadata.crop_resize(square.region, square.source_size, 224)
    f = 1024 / 224
    assert_values(
        stored,
        whole
        | {
            "gsd": (2.39005554285714286,) * 2,
            "multispectral_gsd": (2.0916247 * f,),
            "pixel_size": (5.7061132702663744e-06 * f, 4.696592256557672e-06 * f),
        },
    )


def test_other_categories_need_classes_folders(real_data):
    with pytest.raises(
        SourceError, match=r"none of the 26 images .*17 x image of category 'volcano'.*--classes f"
    ):
        FMoW([real_data / "worldview"]).refs()


def test_class_names():
    assert len(CLASSES) == len(set(CLASSES)) == 62
    assert list(CLASSES) == sorted(CLASSES)
    assert CLASSES[0] == "airport"
    assert CLASSES[-1] == "zoo"


# --- listing --------------------------------------------------------------------------------------


def test_variants_and_splits(tmp_path):
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", [box(7)])
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_msrgb", [box(8)])
    write(tmp_path, "val/barn/barn_2/barn_2_5_rgb", [box(9, "barn")])
    rgb = open_source("fmow", [tmp_path])
    assert listed(rgb) == [
        ("train", "train/zoo/zoo_1/zoo_1_0_rgb.jpg#7", "zoo"),
        ("val", "val/barn/barn_2/barn_2_5_rgb.jpg#9", "barn"),
    ]
    msrgb = open_source("fmow", [tmp_path], variant="msrgb")
    assert [row[1] for row in listed(msrgb)] == ["train/zoo/zoo_1/zoo_1_0_msrgb.jpg#8"]
    assert FMoW([tmp_path], classes="folders").classes == ("barn", "zoo")


BOXES = [
    # the original annotation (ID -1) is no label, each of the others is an example
    ([box(-1), box(3), box(4, "barn")], [("#3", "zoo"), ("#4", "barn")]),
    ([box(-1)], [("#-1", "zoo")]),  # but it is used if it is the only one
    (box(5), [("#5", "zoo")]),  # older releases: one object
    ({"box": [1, 2, 20, 10]}, [("#0", "zoo")]),  # of the folder's category
    ([], [("", "zoo")]),  # none: the full image
    (..., [("", "zoo")]),
    (None, [("", "zoo")]),
    ([box(3), box(3)], [("#3", "zoo"), ("#3.1", "zoo")]),
    ([box("3\n\x1b[2J")], [("#32J", "zoo")]),
    ([box(3, "false_detection"), box(4)], [("#4", "zoo")]),
    ("boxes", [("", "bounding_boxes are not objects")]),
    ([1], [("", "bounding_boxes are not objects")]),
    ([box(3)] * 1001, [("", "more than 1000 bounding boxes")]),
    ([box(3, where=[1, 2, 3])], [("#3", "box is not four numbers")]),
    ([box(3, where="1234")], [("#3", "box is not four numbers")]),
    ([box(3, where=[1, 2, None, 4])], [("#3", "box is not four numbers")]),
    ([box(3, where=[1, 2, True, 4])], [("#3", "box is not four numbers")]),
    ([box(3, where=[1, 2, 10**400, 4])], [("#3", "box is not finite")]),
]


@pytest.mark.parametrize(("boxes", "expected"), BOXES)
def test_boxes(tmp_path, boxes, expected):
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", boxes)
    image = "train/zoo/zoo_1/zoo_1_0_rgb.jpg"
    wanted = [("train", image + name, label) for name, label in expected]
    assert listed(FMoW([tmp_path])) == wanted


def test_skipped_boxes_and_images_are_counted(tmp_path):
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", [box(3, "false_detection"), box(4)])
    write(tmp_path, "train/volcano/volcano_1/volcano_1_0_rgb", [box(4, "volcano")])
    source = FMoW([tmp_path])
    assert len(source.refs()) == 1
    assert source.skipped == {
        "box of category 'false_detection'": 1,
        "image of category 'volcano'": 1,
    }


@pytest.fixture
def hidden(tmp_path):
    """Test images as released, and the ground truth in another folder."""
    write(tmp_path / "images", "train/zoo/zoo_1/zoo_1_0_rgb", [box(1)])
    for name in ("0000007", "0000008", "0000009"):
        path = f"test/{name}/{name}_3_rgb"
        write(tmp_path / "images", path, [{"ID": 5, "box": [1, 2, 20, 10]}], raw_location=None)
    truth = tmp_path / "groundtruth"
    path = "test_gt/barn/barn_12/barn_12_3_rgb"
    write(truth, path, [box(-1, "barn"), box(5, "barn")], image=False)
    pairs = [
        {"input": "test_gt/barn/barn_12", "output": "test/0000007"},
        {"input": "test_gt/zoo/zoo_4", "output": "test/0000008"},  # its record is missing
    ]
    (truth / "test_gt_mapping.json").write_text(json.dumps(pairs))
    return tmp_path


def test_hidden_splits_come_with_the_ground_truth(hidden):
    source = FMoW([hidden / "images", hidden / "groundtruth"])
    assert listed(source) == [
        ("test", "test/0000007/0000007_3_rgb.jpg#5", "barn"),
        ("test", "test/0000008/0000008_3_rgb.jpg", "no ground-truth record"),
        ("train", "train/zoo/zoo_1/zoo_1_0_rgb.jpg#1", "zoo"),
    ]
    assert source.skipped == {"image of test without ground truth": 1}
    example = source.read(source.refs()[0], Problems())
    np.testing.assert_allclose(example.metadata.values["location"], (10.01, 50.005))
    assert example.box == (1, 2, 20, 10)


def test_without_the_ground_truth_hidden_splits_are_counted(hidden):
    source = FMoW([hidden / "images"])
    assert [row[0] for row in listed(source)] == ["train"]
    assert source.skipped == {"image of test without ground truth": 3}


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"input": 1}]', '{"a": 1}', "[" * 100_000])
def test_an_unusable_mapping(hidden, text):
    (hidden / "groundtruth" / "test_gt_mapping.json").write_text(text)
    with pytest.raises(SourceError, match=r"test_gt_mapping\.json: not a mapping of fMoW"):
        FMoW([hidden / "images", hidden / "groundtruth"]).refs()


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(SourceError, match=r"no fMoW images in .*expected train/<class>"):
        FMoW([tmp_path]).refs()
    with pytest.raises(SourceError, match="--variant 'full': must be one of rgb, msrgb"):
        open_source("fmow", [tmp_path], variant="full")
    with pytest.raises(SourceError, match="--classes 'all': must be one of official, folders"):
        open_source("fmow", [tmp_path], classes="all")
