"""Values that cannot work are refused, by name and with the valid ones."""

import pytest

from satmip_jax.config.loading import config_folder, load_config
from satmip_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.name=clip", "'clip'; choose one of simclr, satmip"),
        ("method.loss=triplet", "config.method.loss is 'triplet'; choose one of info_nce, sigmoid"),
        ("method.temperature=0.0", "config.method.temperature is 0.0; it must be above 0"),
        (
            "method.logit_scale_init=-1.0",
            "logit_scale_init is -1.0; it must be above 0",
        ),
        ("method.metadata_weight=-1.0", "metadata_weight is -1.0; it must be at least 0"),
        ("method.geo_clusters=5000", "geo_clusters is 5000; it must be from 2 to 4096"),
        ("method.ssl_dim=0", "ssl_dim is 0; it must be at least 1"),
        ("image.size=60", "60, not a multiple of the patch size 8"),
        ("image.encoder=huge/8", "huge/8"),
        ("image.pool=max", "'max'; choose one of cls, mean"),
        ("metadata.fields=Weather", "Weather"),
        ("metadata.encoder=mlp", "'mlp'; choose one of tabular, text"),
        ("metadata.heads=7", "96, not a multiple of config.metadata.heads, 7"),
        ("metadata.heads=0", "config.metadata.heads is 0; it must be at least 1"),
        ("metadata.field_dropout=1.5", "1.5; it must be from 0 to below 1"),
        ("optimizer.batch_size=1", "at least 2 images"),
        ("optimizer.learning_rate=-1", "-1.0; it must be above 0"),
        ("optimizer.weight_decay=nan", "nan; it must be at least 0"),
        ("optimizer.b2=1.0", "config.optimizer.b2 is 1.0; it must be from 0 to below 1"),
        ("optimizer.eps=0.0", "config.optimizer.eps is 0.0; it must be above 0"),
        ("seed=-1", "config.seed is -1; it must be from 0 to below 4294967296"),
        ("seed=4294967296", "must be from 0 to below 4294967296"),
        ("augment.blur_p=2.0", "config.augment.blur_p is 2.0: needs a probability, 0 to 1"),
        ("augment.crop_scale=(0.9,0.1)", "config.augment.crop_scale is (0.9, 0.1): needs"),
        ("parallel.exchange=tree", "'tree'; choose one of gather, ring"),
        ("parallel.micro_batch=-1", "config.parallel.micro_batch is -1; it must be at least 0"),
        ("checkpoint.every=0", "config.checkpoint.every is 0"),
        ("dtype=float16", "'float16'; choose one of float32, bfloat16"),
    ],
)
def test_values_that_cannot_work_are_refused(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(str(config_folder() / "eurosat.py"), [f"--config.{override}"])
    assert message in str(caught.value)


def test_training_without_a_length_is_refused():
    overrides = ["--config.optimizer.images=0", "--config.optimizer.epochs=0"]
    with pytest.raises(ConfigError, match="no length"):
        load_config(str(config_folder() / "eurosat.py"), overrides)
