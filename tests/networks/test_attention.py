import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.attention import MultiHeadAttention, SelfAttention, TransformerBlock

RNG = np.random.default_rng(0)


def test_a_block_does_not_know_the_order_of_places(randomized):
    block, x = SelfAttention(head_dim=4, groups=2), jnp.asarray(RNG.normal(size=(2, 2, 3, 8)), jnp.float32)
    params, order = randomized(block, x), RNG.permutation(6)
    apply = jax.jit(block.apply)
    shuffled = x.reshape(2, 6, 8)[:, order].reshape(x.shape)
    found = apply(params, x).reshape(2, 6, 8)[:, order].reshape(x.shape)
    np.testing.assert_allclose(apply(params, shuffled), found, atol=1e-5)
    assert np.abs(apply(params, x) - x).max() > 0.1


def test_a_block_starts_as_the_identity():
    block, x = SelfAttention(head_dim=None, groups=2), jnp.asarray(RNG.normal(size=(1, 2, 2, 4)), jnp.float32)
    np.testing.assert_array_equal(block.init_with_output(jax.random.key(0), x)[0], x)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="heads of 3"):
        SelfAttention(head_dim=3, groups=2).init(jax.random.key(0), jnp.ones((1, 2, 2, 4)))


# Multi-head attention and the block of a transformer. Oracles are plain numpy in float64.

FEATURES, HEADS, LENGTH = 6, 2, 5


def numbers(variables):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])


def dense(of, h):
    return h @ of["kernel"] + of.get("bias", 0.0)


def attention_by_hand(of, x, context, mask):
    """softmax(Q K^T / sqrt(d)) V of each head, with -inf where the mask is False, and the output projection."""
    q, k, v = dense(of["query"], x), dense(of["key"], context), dense(of["value"], context)
    width, heads = FEATURES // HEADS, []
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        scores = q[..., own] @ np.swapaxes(k[..., own], 1, 2) / np.sqrt(width)
        weights = np.exp(np.where(mask, scores, -np.inf))
        heads.append(weights / weights.sum(axis=-1, keepdims=True) @ v[..., own])
    return dense(of["out"], np.concatenate(heads, axis=-1))


def layer_norm(of, h):
    centred = h - h.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * of["scale"] + of["bias"]


def gelu(h):
    return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


def block_by_hand(of, h, mask):
    normed = layer_norm(of["attention_norm"], h)
    h = h + attention_by_hand(of["attention"], normed, normed, mask)
    return h + dense(of["narrow"], gelu(dense(of["wide"], layer_norm(of["mlp_norm"], h))))


def drawn(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_to_a_context_equals_the_formula(randomized, causal):
    module = MultiHeadAttention(FEATURES, HEADS)
    x, context = drawn(3, LENGTH, FEATURES), drawn(3, LENGTH + 2, 4)
    mask = np.tri(LENGTH, LENGTH + 2, dtype=bool) if causal else np.ones((LENGTH, LENGTH + 2), bool)
    params = randomized(module, x, context)
    found = jax.jit(module.apply)(params, x, context, mask if causal else None)
    expected = attention_by_hand(numbers(params), np.asarray(x, np.float64), np.asarray(context, np.float64), mask)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.std() > 0.1


def test_a_missing_context_is_an_error():
    with pytest.raises(TypeError, match="context"):
        MultiHeadAttention(FEATURES, HEADS).init(jax.random.key(0), drawn(1, LENGTH, FEATURES))


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_equals_the_formula(randomized, causal):
    module, h = TransformerBlock(FEATURES, HEADS), drawn(3, LENGTH, FEATURES)
    mask = np.tri(LENGTH, dtype=bool) if causal else np.ones((LENGTH, LENGTH), bool)
    params = randomized(module, h)
    expected = block_by_hand(numbers(params), np.asarray(h, np.float64), mask)
    found = jax.jit(module.apply)(params, h, mask if causal else None)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("module", [MultiHeadAttention(FEATURES, HEADS), TransformerBlock(FEATURES, HEADS)])
def test_cached_steps_equal_the_causal_pass(x64, randomized, module):
    h = jnp.asarray(RNG.normal(size=(3, LENGTH, FEATURES)))
    inputs = (h, h) if isinstance(module, MultiHeadAttention) else (h,)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), randomized(module, *inputs))
    whole = jax.jit(module.apply)(params, *inputs, np.tri(LENGTH, dtype=bool))
    call = functools.partial(module.apply, params)
    # The cache is longer than the sequence: what is not written yet is not read.
    cache, step = call(3, LENGTH + 4, jnp.float64, method="begin"), jax.jit(functools.partial(call, method="step"))
    cache = jax.tree.map(lambda leaf: leaf + 7.0, cache)
    for i in range(LENGTH):
        cache, y = step(cache, i, h[:, i])
        np.testing.assert_allclose(y, whole[:, i], rtol=1e-10, atol=1e-12)


def test_weights_are_float32_in_half_precision(randomized):
    """Half precision would round weights of 1 / 300 so that their sum is off by more than their rounding."""
    module, x = MultiHeadAttention(FEATURES, HEADS, dtype=jnp.bfloat16), drawn(1, 300, FEATURES)
    params = randomized(module, x, x)
    jaxpr = str(jax.make_jaxpr(lambda x: module.apply(params, x, x))(x))
    assert "f32[2,300,300] = exp" in jaxpr
    assert jax.eval_shape(module.apply, params, x, x).dtype == jnp.bfloat16


def test_residual_layers_start_smaller_in_a_deep_network():
    h = drawn(1, LENGTH, 64)
    inits = (jax.jit(TransformerBlock(64, 4, layers=layers).init) for layers in (1, 8))
    alone, deep = (init(jax.random.key(0), h)["params"] for init in inits)
    for name, one, other in (
        ("out", alone["attention"]["out"], deep["attention"]["out"]),
        ("narrow", alone["narrow"], deep["narrow"]),
    ):
        ratio = np.std(other["kernel"]) / np.std(one["kernel"])
        np.testing.assert_allclose(ratio, 1 / np.sqrt(8), rtol=1e-3, err_msg=name)
    np.testing.assert_allclose(np.std(alone["narrow"]["kernel"]), np.sqrt(1 / 256 / 2), rtol=0.05)
    np.testing.assert_array_equal(alone["wide"]["kernel"], deep["wide"]["kernel"])


def test_dropout_drops_the_updates_in_training_only(randomized):
    module, h = TransformerBlock(FEATURES, HEADS, dropout=0.5), drawn(3, LENGTH, FEATURES)
    params = randomized(module, h)
    plain = jax.jit(TransformerBlock(FEATURES, HEADS).apply)(params, h)
    np.testing.assert_array_equal(jax.jit(module.apply)(params, h), plain)
    dropped = jax.jit(module.apply)(params, h, rngs={"dropout": jax.random.key(0)})
    unchanged = np.mean(np.asarray(dropped) == np.asarray(h))
    assert 0.1 < unchanged < 0.4  # both updates of a value are dropped with probability 1/4


def test_heads_must_divide_the_features():
    with pytest.raises(ValueError, match="4 heads"):
        MultiHeadAttention(6, 4).init(jax.random.key(0), drawn(1, 2, 6), drawn(1, 2, 6))
