import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.mlp import MLP, MLPDecoder, MLPEncoder


def test_mlp_equals_its_composition_by_hand():
    x = jax.random.normal(jax.random.key(0), (3, 4))
    network = MLP((5,), 2, activation=nn.tanh)
    params = network.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases of zero would prove nothing
    first, second = params["Dense_0"], params["Dense_1"]
    by_hand = np.tanh(np.asarray(x) @ first["kernel"] + np.asarray(first["bias"])[None])
    by_hand = by_hand @ second["kernel"] + np.asarray(second["bias"])[None]
    np.testing.assert_allclose(network.apply({"params": params}, x), by_hand, atol=1e-6)


@pytest.mark.parametrize("event_shape", [(2,), (8, 8, 1), (5, 7, 3)])
def test_encoder_and_decoder_have_the_shapes_of_the_contract(event_shape):
    x = jax.random.normal(jax.random.key(0), (4, *event_shape))
    (mean, log_var), _ = jax.eval_shape(MLPEncoder((6, 6), 3).init_with_output, jax.random.key(1), x)
    assert mean.shape == log_var.shape == (4, 3)
    decoder = MLPDecoder((6, 6), event_shape, outputs_per_dim=2)
    outputs, _ = jax.eval_shape(decoder.init_with_output, jax.random.key(2), mean)
    assert outputs.shape == (4, *event_shape[:-1], 2 * event_shape[-1])


def test_mean_and_log_var_have_separate_weights():
    x = jax.random.normal(jax.random.key(0), (4, 8))
    (mean, log_var), _ = MLPEncoder((6,), 3).init_with_output(jax.random.key(1), x)
    assert not np.allclose(mean, log_var)


def test_the_activation_is_an_argument():
    x = jax.random.normal(jax.random.key(0), (4, 8))
    variables = MLP((6,), 3).init(jax.random.key(1), x)
    assert not np.allclose(MLP((6,), 3, nn.tanh).apply(variables, x), MLP((6,), 3, nn.relu).apply(variables, x))


def test_bfloat16_compute_keeps_float32_parameters():
    network = MLPEncoder((6,), 3, dtype=jnp.bfloat16)
    (mean, _), variables = network.init_with_output(jax.random.key(0), jnp.ones((2, 8)))
    assert mean.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_jit_and_vmap_agree():
    x = jax.random.normal(jax.random.key(0), (3, 4, 8))
    network = MLPEncoder((6,), 3)
    variables = network.init(jax.random.key(1), x[0])
    mapped = jax.vmap(network.apply, in_axes=(None, 0))(variables, x)
    for i in range(3):
        mean, log_var = jax.jit(network.apply)(variables, x[i])
        np.testing.assert_allclose(mapped[0][i], mean, atol=1e-6)
        np.testing.assert_allclose(mapped[1][i], log_var, atol=1e-6)
