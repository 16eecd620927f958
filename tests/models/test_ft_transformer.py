"""The FT-Transformer against rtdl's, and its rules for missing fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.models.ft_transformer import FTTransformer

FIELDS = ("gsd", "country", "angle", "sensor")
VOCABULARY = {"country": 5, "sensor": 3}
SMALL = {"fields": FIELDS, "vocabulary_sizes": VOCABULARY, "width": 32, "depth": 2, "heads": 4}


MODEL = FTTransformer(**SMALL)


def records(n):
    rng = np.random.default_rng(0)
    features = {
        "gsd": rng.standard_normal((n, 1), np.float32),
        "angle": rng.standard_normal((n, 2), np.float32),
        "unused": np.full((n, 3), np.nan, np.float32),
    }
    categories = rng.integers(0, 3, (n, 2)).astype(np.int32)
    return features, categories, np.ones((n, len(FIELDS)), bool)


def init(model, inputs):
    """Return parameters moved off their initial values, so that each has an effect."""
    params = jax.jit(model.init)(jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)


@pytest.fixture(scope="module")
def params():
    return init(MODEL, records(4))


@jax.jit
def apply(params, *inputs):
    return MODEL.apply(params, *inputs)


@jax.jit
def gradient(params, *inputs):
    return jax.grad(lambda p: jnp.sum(MODEL.apply(p, *inputs) ** 2))(params)


def from_rtdl(tensors, fields, depth):
    """Convert rtdl's state or its gradients to our layout; `fields`: numeric ones first."""
    t = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    numeric = len(t["cont_embeddings.weight"])

    def linear(*names):
        kernel = np.concatenate([t[f"{name}.weight"].T for name in names], axis=1)
        return {"kernel": kernel, "bias": np.concatenate([t[f"{name}.bias"] for name in names])}

    def norm(name):
        return {"scale": t[f"{name}.weight"], "bias": t[f"{name}.bias"]}

    tokenizer = {}
    for i, name in enumerate(fields[:numeric]):
        kernel = t["cont_embeddings.weight"][None, i]
        tokenizer[name] = {"kernel": kernel, "bias": t["cont_embeddings.bias"][i]}
    for i, name in enumerate(fields[numeric:]):
        embedding = t[f"cat_embeddings.embeddings.{i}.weight"]
        tokenizer[name] = {"embedding": embedding, "bias": t["cat_embeddings.bias"][i]}
    params = {"cls_token": t["cls_embedding.weight"], "tokenizer": tokenizer}
    for i in range(depth):
        block = f"backbone.blocks.{i}"
        attention = f"{block}.attention"
        params[f"block{i}"] = {
            "attention": {
                "qkv": linear(*(f"{attention}.W_{x}" for x in "qkv")),
                "out": linear(f"{attention}.W_out"),
            },
            "ffn_norm": norm(f"{block}.ffn_normalization"),
            "ffn": {
                "linear1": linear(f"{block}.ffn.linear1"),
                "linear2": linear(f"{block}.ffn.linear2"),
            },
        }
        if i:
            params[f"block{i}"]["attention_norm"] = norm(f"{block}.attention_normalization")
    params["norm"] = norm("backbone.output.normalization")
    return params


@pytest.mark.oracle
def test_equals_rtdl():
    torch = pytest.importorskip("torch")
    rtdl = pytest.importorskip("rtdl_revisiting_models")
    torch.manual_seed(0)
    theirs = rtdl.FTTransformer(
        n_cont_features=3,
        cat_cardinalities=[4, 7],
        d_out=1,
        **rtdl.FTTransformer.get_default_kwargs(3),
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    fields = ("a", "b", "c", "d", "e")
    ours = FTTransformer(fields=fields, vocabulary_sizes={"d": 4, "e": 7})  # rtdl's default
    params = from_rtdl(theirs.state_dict(), fields, depth=3)

    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((6, 3), np.float32)
    categories = np.stack([rng.integers(0, 4, 6), rng.integers(0, 7, 6)], 1).astype(np.int32)
    weights = rng.standard_normal((6, 192), np.float32)
    present = jnp.ones((6, 5), bool)

    normed = []  # the output of the norm in rtdl's head
    theirs.backbone.output.normalization.register_forward_hook(lambda *a: normed.append(a[2]))
    x = torch.from_numpy(numbers).requires_grad_()
    theirs(x, torch.from_numpy(categories).long())
    (normed[0] * torch.from_numpy(weights)).sum().backward()
    grads = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    expected_grads = from_rtdl(grads, fields, depth=3)

    missing = np.zeros((5, 192), np.float32)  # rtdl has no such tokens

    def loss(params, numbers):
        tokenizer = {**params["tokenizer"], "missing": missing}
        features = dict(zip("abc", jnp.split(numbers, 3, axis=1), strict=True))
        variables = {"params": {**params, "tokenizer": tokenizer}}
        out = ours.apply(variables, features, jnp.asarray(categories), present)
        return jnp.sum(out * weights), out

    (_, out), (grads, grad_numbers) = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    )(params, jnp.asarray(numbers))
    np.testing.assert_allclose(out, normed[0].detach().numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grad_numbers, x.grad.numpy(), rtol=1e-4, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()),
        grads,
        expected_grads,
    )


@pytest.mark.oracle
def test_parameters_are_initialised_as_in_rtdl():
    pytest.importorskip("torch")
    rtdl = pytest.importorskip("rtdl_revisiting_models")
    theirs = rtdl.FTTransformer(
        n_cont_features=1,
        cat_cardinalities=[50],
        d_out=1,
        **rtdl.FTTransformer.get_default_kwargs(3),
    )
    expected = from_rtdl(theirs.state_dict(), ("x", "c"), depth=3)
    ours = FTTransformer(fields=("x", "c"), vocabulary_sizes={"c": 50})
    inputs = {"x": np.zeros((1, 1), np.float32)}, np.zeros((1, 1), np.int32), np.ones((1, 2), bool)
    params = jax.jit(ours.init)(jax.random.key(0), *inputs)["params"]
    del params["tokenizer"]["missing"]

    def alike(a, b):
        assert a.shape == b.shape
        # Largest magnitude and spread of at least 192 draws from the same distribution.
        np.testing.assert_allclose(np.abs(a).max(), np.abs(b).max(), rtol=0.1)
        np.testing.assert_allclose(np.std(a), np.std(b), rtol=0.25)

    jax.tree.map(alike, params, expected)


@pytest.mark.parametrize("position", range(len(FIELDS)))
def test_the_value_of_a_missing_field_has_no_effect(params, position):
    features, categories, present = records(4)
    name = FIELDS[position]
    if name in VOCABULARY:
        changed = (features, categories.copy())
        changed[1][:, list(VOCABULARY).index(name)] = -7
    else:
        changed = ({**features, name: np.full_like(features[name], np.nan)}, categories)
    absent = present.copy()
    absent[:, position] = False

    out = apply(params, features, categories, absent)
    np.testing.assert_array_equal(out, apply(params, *changed, absent))
    assert np.isfinite(out).all()
    assert not np.allclose(out, apply(params, features, categories, present), atol=1e-3)

    grads = gradient(params, *changed, absent)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    tokenizer = grads["params"]["tokenizer"]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(tokenizer[name]))
    used = np.any(np.asarray(tokenizer["missing"]), axis=1)
    np.testing.assert_array_equal(used, np.arange(len(FIELDS)) == position)


def test_every_present_field_changes_the_output(params):
    features, categories, present = records(4)
    out = apply(params, features, categories, present)
    others = [
        ({**features, "gsd": features["gsd"] + np.float32(1)}, categories),
        ({**features, "angle": features["angle"] + np.array([[0, 1]], np.float32)}, categories),
        (features, (categories + np.array([[1, 0]], np.int32)) % 3),
        (features, (categories + np.array([[0, 1]], np.int32)) % 3),
    ]
    for changed in others:
        assert not np.allclose(out, apply(params, *changed, present), atol=1e-3)


def test_field_dropout_drops_present_fields_at_its_rate():
    n = 2000
    inputs = (
        {"gsd": np.ones((n, 1), np.float32)},
        np.zeros((n, 0), np.int32),
        np.arange(n)[:, None] % 2 == 0,
    )
    model = FTTransformer(
        fields=("gsd",),
        vocabulary_sizes={},
        width=16,
        depth=1,
        heads=2,
        attention_dropout=0.0,
        ffn_dropout=0.0,
        field_dropout=0.3,
    )
    params = init(model, inputs)
    evaluated = np.asarray(jax.jit(model.apply)(params, *inputs))
    keys = jax.random.split(jax.random.key(3), n)
    trained = np.asarray(jax.jit(model.apply)(params, *inputs, keys))
    is_missing = np.isclose(trained, evaluated[1], atol=1e-5).all(axis=1)
    is_present = np.isclose(trained, evaluated[0], atol=1e-5).all(axis=1)
    assert (is_missing ^ is_present).all()
    assert is_missing[1::2].all()
    assert is_missing[::2].mean() == pytest.approx(0.3, abs=0.05)  # 3.4 standard deviations


@pytest.mark.parametrize("rate", ["attention_dropout", "ffn_dropout"])
def test_dropout_is_applied_in_training_only(params, rate):
    inputs = records(4)
    off = {"attention_dropout": 0.0, "ffn_dropout": 0.0}
    model = FTTransformer(**SMALL, **{**off, rate: 0.5})
    train = jax.jit(model.apply)
    evaluated = jax.jit(model.apply)(params, *inputs)
    np.testing.assert_array_equal(evaluated, apply(params, *inputs))
    one, same, other = (
        train(params, *inputs, jax.random.split(jax.random.key(seed), 4)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other, atol=1e-2)
    assert not np.allclose(one, evaluated, atol=1e-2)


def test_bfloat16_is_close_and_parameters_are_float32(params):
    inputs = records(4)
    half = FTTransformer(**SMALL, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    a, b = apply(params, *inputs), jax.jit(half.apply)(params, *inputs)
    assert a.dtype == b.dtype == jnp.float32
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.02


def test_empty_vocabularies_are_finite_and_unknown_ids_give_nan():
    model = FTTransformer(fields=("c",), vocabulary_sizes={"c": 0}, width=16, heads=2, depth=1)
    ids = np.array([[0], [3]], np.int32)
    params = init(model, ({}, ids, np.zeros((2, 1), bool)))
    apply = jax.jit(model.apply)
    assert np.isfinite(apply(params, {}, ids, np.zeros((2, 1), bool))).all()
    out = apply(params, {}, ids, np.ones((2, 1), bool))
    assert np.isnan(out[1]).all()  # clamping the id would be silently wrong


def test_errors_say_what_is_wrong_with_the_inputs(no_type_checks):
    features, categories, present = records(2)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"present must be \(batch, 4\), not \(2, 15\)"):
        MODEL.init(key, features, categories, jnp.ones((2, 15), bool))
    with pytest.raises(ValueError, match=r"categories must be \(batch, 2\), not \(2, 1\)"):
        MODEL.init(key, features, categories[:, :1], present)
    with pytest.raises(ValueError, match=r"no features for \['gsd'\]"):
        MODEL.init(key, {"angle": features["angle"]}, categories, present)
    with pytest.raises(ValueError, match="'utm'"):
        FTTransformer(fields=("gsd",), vocabulary_sizes={"utm": 3}).init(
            key, features, categories, present
        )
    with pytest.raises(ValueError, match="nothing to encode"):
        FTTransformer(fields=(), vocabulary_sizes={}).init(key, features, categories, present)
