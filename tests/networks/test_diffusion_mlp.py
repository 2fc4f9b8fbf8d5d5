import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.networks.time_embedding import TimeEmbedding


def test_the_first_prediction_is_zero():
    out = DiffusionMLP(8, 2).init_with_output(jax.random.key(0), jnp.ones((3, 2, 2)), jnp.arange(1, 4))[0]
    np.testing.assert_array_equal(out, np.zeros((3, 2, 2)))


def test_the_prediction_depends_on_all_of_its_own_example_only(randomized):
    module = DiffusionMLP(16, 2, num_classes=3)
    x_t = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
    t, label = jnp.asarray([1, 2]), jnp.asarray([0, 1])
    params = randomized(module, x_t, t, label)
    jacobian = np.abs(jax.jit(jax.jacrev(lambda x_t: module.apply(params, x_t, t, label)))(x_t))
    assert jacobian[0, :, 0].min() > 0
    assert jacobian[1, :, 1].min() > 0
    assert jacobian[0, :, 1].max() == jacobian[1, :, 0].max() == 0
    apply = jax.jit(module.apply)
    for moved in ((x_t, t + 5, label), (x_t, t, label + 1)):
        assert np.abs(apply(params, *moved) - apply(params, x_t, t, label)).min() > 1e-4


def test_outputs_equal_the_residual_blocks_by_hand(randomized):
    module = DiffusionMLP(6, 2, num_classes=3)
    x_t = jnp.asarray(np.random.default_rng(0).normal(size=(4, 1, 2)), jnp.float32)
    t, label = jnp.asarray([1, 5, 2, 9]), jnp.asarray([0, 1, 2, 1])
    params = randomized(module, x_t, t, label)
    of = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])

    def dense(name, h):
        return h @ of[name]["kernel"] + of[name]["bias"]

    def silu(h):
        return h / (1.0 + np.exp(-h))

    time = TimeEmbedding(64, 6, 3).apply({"params": params["params"]["time"]}, t, label)
    e, h = silu(np.asarray(time, np.float64)), dense("first", np.asarray(x_t, np.float64).reshape(4, 2))
    for i in range(2):
        h = h + dense(f"outer_{i}", silu(dense(f"inner_{i}", silu(h)) + dense(f"time_{i}", e)))
    expected = dense("last", silu(h)).reshape(4, 1, 2)
    assert expected.std() > 0.1
    np.testing.assert_allclose(module.apply(params, x_t, t, label), expected, atol=1e-4)


def test_dropout_applies_only_in_training(randomized):
    module = DiffusionMLP(16, 1, dropout=0.5)
    x_t, t = jnp.ones((3, 2)), jnp.asarray([1, 2, 3])
    params = randomized(module, x_t, t)
    draws = [module.apply(params, x_t, t, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 1e-2
    np.testing.assert_array_equal(module.apply(params, x_t, t), module.apply(params, x_t, t))


def test_outputs_of_half_precision_are_float32():
    module = DiffusionMLP(8, 1, dtype=jnp.bfloat16)
    out = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.ones((1, 2)), jnp.ones(1))[0]
    assert out.dtype == jnp.float32
