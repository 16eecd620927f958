"""Roles of parameters, by name."""

import pytest

from satmip_jax.models import parameter_role, parameter_roles


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("image_encoder/cls", "token"),
        ("image_encoder/position", "embedding"),
        ("image_encoder/patch_embed/kernel", "matrix"),
        ("image_encoder/encoder/blocks/norm1/scale", "norm"),
        ("metadata_encoder/transformer/cls_token", "token"),
        ("metadata_encoder/transformer/token_embedding", "embedding"),
        ("metadata_encoder/transformer/tokenizer/missing", "token"),
        ("metadata_encoder/transformer/tokenizer/country_code/embedding", "embedding"),
        ("metadata_encoder/transformer/tokenizer/gsd/kernel", "tokenizer"),
        ("metadata_encoder/transformer/block0/ffn_norm/bias", "norm"),
        ("heads_image_ssl/linear3/bias", "bias"),
        ("heads_token_counts/linear/kernel", "matrix"),
        ("log_scale", "logit"),
    ],
)
def test_roles_by_name(path, role):
    assert parameter_role(path) == role


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match=r"'image_encoder/gamma' has no role: add a rule"):
        parameter_roles({"image_encoder": {"gamma": 1.0, "fc": {"kernel": 1.0}}})
