import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks import dit
from gm_jax.networks.text_encoder import TextEncoder

X = jax.random.normal(jax.random.key(1), (2, 4, 6, 3))
T = jnp.array([3, 70])
CAPTIONS = jnp.array([[3, 1, 2, 0], [1, 1, 0, 0]])
TEXT = TextEncoder((4,), 5, 8, features=4, heads=1, layers=1)


def network(**settings):
    return dit.DiT(8, layers=2, heads=2, **settings)


@pytest.mark.parametrize(
    ("settings", "y", "outputs"),
    [
        ({}, None, 1),
        ({"num_classes": 3, "patch": 1}, jnp.array([0, 2]), 1),
        ({"text": TEXT, "outputs": 2}, CAPTIONS, 2),
    ],
    ids=["alone", "labels", "text"],
)
def test_the_output_is_zero_at_first_and_depends_on_every_input(settings, y, outputs, randomized):
    module = network(**settings)
    out, _ = module.init_with_output(jax.random.key(0), X, T, y)
    assert out.shape == (2, 4, 6, 3 * outputs)
    np.testing.assert_array_equal(out, 0.0)
    apply = jax.jit(module.apply)
    moved = randomized(module, X, T, y)
    before = apply(moved, X, T, y)
    assert np.abs(before - apply(moved, X.at[0, 3, 5, 2].add(1.0), T, y))[0].min(axis=-1).min() > 0
    assert np.abs(before - apply(moved, X, T + 1, y)).max() > 1e-4
    if y is not None:
        assert np.abs(before - apply(moved, X, T, y[::-1])).max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "y"), [({}, None), ({"num_classes": 3}, jnp.array([0, 2])), ({"text": TEXT}, CAPTIONS)]
)
def test_recomputed_blocks_have_the_same_parameters_outputs_and_gradients(settings, y, randomized, x64):
    plain, recomputed = network(**settings), network(**settings, remat=True)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), randomized(plain, X, T, y))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(recomputed.init, jax.random.key(0), X, T, y)
    )
    found = [
        jax.jit(
            jax.value_and_grad(lambda params, x, module=module: jnp.sum(jnp.sin(module.apply(params, x, T, y))), (0, 1))
        )(params, X.astype(jnp.float64))
        for module in (recomputed, plain)
    ]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11), *found)


def test_recomputed_blocks_store_less_for_the_backward_pass():
    def stored(remat):
        module = network(remat=remat)
        params = jax.eval_shape(module.init, jax.random.key(0), X, T)
        residuals = jax.eval_shape(lambda params: jax.vjp(lambda p: module.apply(p, X, T), params)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals) if leaf.shape[:2] == (2, 6))  # [B, N, ...]

    assert stored(True) < 0.3 * stored(False)


def test_blocks_are_the_identity_at_first():
    block = dit.DiTBlock(8, heads=2, reads_text=True)
    h, c, context = (
        jax.random.normal(jax.random.key(k), shape) for k, shape in enumerate([(2, 6, 8), (2, 8), (2, 5, 8)])
    )
    counts = jnp.ones((2, 5), bool)
    out, variables = block.init_with_output(jax.random.key(0), h, c, context, counts)
    np.testing.assert_array_equal(out, h)
    with pytest.raises(ValueError, match="needs a context"):
        block.apply(variables, h, c, None, counts)


def test_patches_are_put_together_again():
    np.testing.assert_array_equal(dit._unpatched(dit._patches(X, 2), 2, 3, 2), X)


def test_a_block_modulates_gates_and_reads_as_written_out(randomized):
    block = dit.DiTBlock(8, heads=1)
    h, c = jax.random.normal(jax.random.key(2), (1, 3, 8)), jax.random.normal(jax.random.key(3), (1, 8))
    variables = randomized(block, h, c, None, jnp.ones((1, 1), bool))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    x, mod = np.asarray(h, np.float64)[0], np.asarray(c, np.float64)[0] @ p["mod"]["kernel"] + p["mod"]["bias"]
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = np.split(mod, 6)

    def norm(x, shift, scale):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * (1 + scale) + shift

    def dense(layer, x):
        return x @ layer["kernel"] + layer.get("bias", 0.0)

    n = norm(x, shift_1, scale_1)
    q, k, v = (dense(p["attention"][name], n) for name in ("query", "key", "value"))
    weights = np.exp(q @ k.T / np.sqrt(8))
    x = x + gate_1 * dense(p["attention"]["out"], weights / weights.sum(-1, keepdims=True) @ v)
    wide = dense(p["wide"], norm(x, shift_2, scale_2))
    x = x + gate_2 * dense(p["narrow"], np.asarray(nn.gelu(jnp.asarray(wide))))
    np.testing.assert_allclose(block.apply(variables, h, c, None, jnp.ones((1, 1), bool))[0], x, rtol=2e-4, atol=2e-4)


def test_padding_changes_nothing_and_words_do(randomized):
    module = network(text=TEXT)
    variables = randomized(module, X, T, CAPTIONS)
    apply = jax.jit(module.apply)
    out = apply(variables, X, T, CAPTIONS)
    other = jax.tree.map(lambda leaf: leaf, variables)
    table = other["params"]["text"]["embedding"]["embedding"]
    other["params"]["text"]["embedding"]["embedding"] = table.at[0].multiply(-3.0)  # of the padding
    np.testing.assert_array_equal(apply(other, X, T, CAPTIONS), out)
    assert np.abs(apply(variables, X, T, CAPTIONS[:, jnp.array([1, 0, 2, 3])]) - out)[0].max() > 1e-4


@pytest.mark.parametrize("sums", [True, False])
def test_the_summary_of_the_caption_joins_the_time(sums, randomized):
    text = TEXT.clone(sums=sums)
    module = network(text=text)
    params = randomized(module, X[:1], T[:1], CAPTIONS[:1])["params"]
    # Cross-attentions that add nothing: the caption is in the summary alone.
    for name in ("block_0", "block_1"):
        layer = params[name]["cross_attention"]["attention"]["out"]
        params[name]["cross_attention"]["attention"]["out"] = jax.tree.map(jnp.zeros_like, layer)
    found = module.apply({"params": params}, X[:1], T[:1], CAPTIONS[:1])
    summary = text.summary(*text.apply({"params": params["text"]}, CAPTIONS[:1]))[0]
    time = {**params["time"], "Dense_1": {**params["time"]["Dense_1"]}}
    time["Dense_1"]["bias"] = time["Dense_1"]["bias"] + summary
    without = {name: leaf for name, leaf in params.items() if name != "text"} | {"time": time}
    for name in ("block_0", "block_1"):
        without[name] = {part: leaf for part, leaf in without[name].items() if part != "cross_attention"}
    expected = network().apply({"params": without}, X[:1], T[:1])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found - network().apply({"params": without | {"time": params["time"]}}, X[:1], T[:1])).max() > 1e-3


def test_attention_maps_are_kept_on_demand_and_are_shares_of_the_words(randomized):
    module = network(text=TEXT)
    variables = randomized(module, X, T, CAPTIONS)
    out, kept = module.apply(variables, X, T, CAPTIONS, mutable=["attention_maps"])
    np.testing.assert_allclose(out, module.apply(variables, X, T, CAPTIONS), rtol=1e-6)
    maps = jax.tree.leaves(kept["attention_maps"])
    assert [leaf.shape for leaf in maps] == [(2, 6, 5)] * 2
    np.testing.assert_allclose(np.sum(maps[0], axis=-1), 1.0, rtol=1e-5)
    assert np.asarray(maps[0])[1, :, 3:].max() == 0.0  # the padding of the second caption


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: network(text=TEXT).init(jax.random.key(0), X, T), ValueError, "got none: pass tokens"),
        (lambda: network(num_classes=3).init(jax.random.key(0), X, T), ValueError, "got no label"),
        (lambda: network(patch=4).init(jax.random.key(0), X, T), UserError, "do not divide 4 x 6"),
        (lambda: network().init(jax.random.key(0), X[0, 0], T), UserError, "a DiT needs images"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
