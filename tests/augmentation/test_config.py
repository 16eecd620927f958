"""The options of the views: tuples, hashing, error messages."""

import dataclasses

import pytest

from satmip_jax.augmentation.config import AugmentConfig

pytestmark = pytest.mark.usefixtures("no_type_checks")  # the config checks its values itself


def test_config_is_hashable_and_takes_lists():
    config = AugmentConfig(size=64, crop_scale=[0.5, 1], jitter=[0.4, 0.4, 0.2, 0])
    assert config == AugmentConfig(size=64, crop_scale=(0.5, 1.0), jitter=(0.4, 0.4, 0.2, 0.0))
    assert len({config, dataclasses.replace(config)}) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0),
        ("size", 2.5),
        ("size", True),
        ("crop_scale", (0, 1)),
        ("crop_scale", (0.5, 0.4)),
        ("crop_scale", (0.5, 1.1)),
        ("crop_scale", 0.5),
        ("crop_scale", (0.1, float("nan"))),
        ("crop_ratio", (-1, 1)),
        ("crop_ratio", (0.5, 0.6, 0.7)),
        ("hflip", 0.5),
        ("rot90", "yes"),
        ("jitter", (0.4, 0.4, 0.4)),
        ("jitter", (0.4, -0.1, 0.4, 0.1)),
        ("jitter", (0.4, 0.4, 0.4, 0.6)),
        ("jitter_p", 1.5),
        ("grey_p", -0.1),
        ("blur_p", float("nan")),
        ("blur_p", "half"),
        ("blur_sigma", (0, 2)),
        ("blur_sigma", (2, 1)),
    ],
)
def test_errors_name_the_option(name, value):
    with pytest.raises(ValueError, match=f"AugmentConfig.{name} is "):
        AugmentConfig(**{"size": 64, name: value})
