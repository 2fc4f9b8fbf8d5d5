import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import autoregressive as losses
from gm_jax.networks.nade import NADE

B, H = 5, 7
RNG = np.random.default_rng(0)


def random_params(network, *args):
    shapes = jax.eval_shape(network.init, jax.random.key(0), *args)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes)


def binary(*shape):
    return jnp.asarray(RNG.integers(0, 2, shape), jnp.float32)


def naive(params, x, order, label=None):
    """Computes equations (1) and (2) with h_i from scratch for every i."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.asarray(x, np.float64)
    logits = np.zeros_like(x)
    for i, dim in enumerate(order):
        before = order[:i]
        a = p["hidden_bias"] + x[:, before] @ p["encoder"][before]
        b = p["bias"][dim]
        if label is not None:
            a, b = a + p["label_hidden_bias"][label], b + p["label_bias"][label, dim]
        logits[:, dim] = b + 1.0 / (1.0 + np.exp(-a)) @ p["decoder"][dim]
    return logits


# With chunks of 32 steps: one dimension, less than a chunk, two whole chunks, and a remainder.
@pytest.mark.parametrize("num_dims", [1, 10, 64, 70])
def test_the_recursion_equals_the_naive_computation(x64, num_dims):
    order = RNG.permutation(num_dims)
    x, label, network = binary(B, num_dims), np.arange(B) % 3, NADE(num_dims, H, num_classes=3, chunk=32)
    params = random_params(network, x, order, label)
    logits = network.apply({"params": params}, x, order, label)
    np.testing.assert_allclose(logits, naive(params, x, order, label), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_the_checkpointed_loop_equals_the_formula(x64):
    num_dims = 12  # two whole chunks and a remainder
    order = RNG.permutation(num_dims)
    x, network = binary(B, num_dims), NADE(num_dims, H, chunk=5)
    params = random_params(network, x, order)

    def written_out(p):
        before = jnp.asarray(np.argsort(order)[:, None] < np.argsort(order)[None, :], x.dtype)
        a = p["hidden_bias"] + jnp.einsum("bj,ji,jh->bih", x, before, p["encoder"])
        return p["bias"] + jnp.einsum("bih,ih->bi", jax.nn.sigmoid(a), p["decoder"])

    with jax.numpy_rank_promotion("allow"):
        expected = jax.jit(jax.grad(lambda p: losses.bernoulli_nll(x, written_out(p)).sum()))(params)
    apply = lambda p: network.apply({"params": p}, x, order)  # noqa: E731
    gradient = jax.jit(jax.grad(lambda p: losses.bernoulli_nll(x, apply(p)).sum()))(params)
    for name in gradient:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_without_weights_every_dimension_costs_log_2():
    # A sigmoid inside the network would make the logits 0.5 and change the cost.
    num_dims = 12
    x, network = binary(B, num_dims), NADE(num_dims, H)
    zeros = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), x, np.arange(num_dims)))
    logits = network.apply(zeros, x, np.arange(num_dims))
    np.testing.assert_allclose(losses.bernoulli_nll(x, logits), num_dims * np.log(2.0), rtol=1e-6)


def test_logits_are_not_confined_to_probabilities():
    num_dims = 3
    network = NADE(num_dims, H)
    x = binary(B, num_dims)
    params = network.init(jax.random.key(0), x, np.arange(num_dims))["params"]
    params["bias"] = jnp.asarray([-30.0, 0.0, 30.0])
    logits = np.asarray(network.apply({"params": params}, x, np.arange(num_dims)))
    assert logits[:, 0].max() < -20
    assert logits[:, 2].min() > 20


def test_jit_and_vmap_agree():
    num_dims, order = 10, RNG.permutation(10)
    x, network = binary(3, B, num_dims), NADE(num_dims, H)
    params = random_params(network, x[0], order)
    apply = lambda x: network.apply({"params": params}, x, order)  # noqa: E731
    mapped = jax.vmap(apply)(x)
    for i in range(3):
        np.testing.assert_allclose(mapped[i], jax.jit(apply)(x[i]), atol=1e-5)


def test_unexpected_and_missing_labels_raise():
    x, order, label = binary(B, 4), np.arange(4), jnp.zeros(B, jnp.int32)
    with pytest.raises(ValueError, match="label"):
        NADE(4, H).init(jax.random.key(0), x, order, label)
    with pytest.raises(ValueError, match="label"):
        NADE(4, H, num_classes=3).init(jax.random.key(0), x, order)
