import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.fvsbn import FVSBN
from gm_jax.networks.made import MADE, mask_sets

D, B = 6, 5
RNG = np.random.default_rng(0)
ORDER = np.asarray([3, 0, 5, 1, 4, 2])


def random_params(network, *args):
    shapes = jax.eval_shape(network.init, jax.random.key(0), *args)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes)


def binary(*shape):
    return jnp.asarray(RNG.integers(0, 2, shape), jnp.float32)


def test_fvsbn_is_a_logistic_regression_of_each_dimension_on_earlier_ones(x64):
    x, network = binary(B, D), FVSBN(D)
    params = random_params(network, x, ORDER)
    logits = network.apply({"params": params}, x, ORDER)
    for i, dim in enumerate(ORDER):
        earlier = ORDER[:i]
        regression = params["bias"][dim] + np.asarray(x)[:, earlier] @ np.asarray(params["kernel"])[earlier, dim]
        np.testing.assert_allclose(logits[:, dim], regression, rtol=1e-12, atol=1e-12)


def test_the_regressions_have_separate_gradients():
    # The gradient of one dimension's loss touches only its own column and bias.
    x, network = binary(B, D), FVSBN(D)
    params = random_params(network, x, ORDER)
    gradient = jax.grad(lambda p: network.apply({"params": p}, x, ORDER)[:, 4].sum())(params)
    touched = np.abs(np.asarray(gradient["kernel"])).sum(axis=0) > 0
    np.testing.assert_array_equal(touched, np.arange(D) == 4)
    np.testing.assert_array_equal(np.asarray(gradient["bias"]) != 0, np.arange(D) == 4)


def test_fvsbn_equals_made_without_hidden_layers(x64):
    x, label = binary(B, D), jnp.arange(B) % 3
    network, made = FVSBN(D, num_classes=3), MADE(D, (), num_classes=3)
    params = random_params(network, x, ORDER, label)
    same = {"kernel_0": params["kernel"], "bias_0": params["bias"], "label_bias_0": params["label_bias"]}
    masks = jax.tree.map(lambda leaf: leaf[0], mask_sets(ORDER[None], ()))
    np.testing.assert_array_equal(
        network.apply({"params": params}, x, ORDER, label), made.apply({"params": same}, x, masks, label)
    )


def test_the_diagonal_and_later_dimensions_are_masked():
    x, network = binary(D), FVSBN(D)
    params = random_params(network, x[None], ORDER)
    jacobian = jax.jacobian(lambda x: network.apply({"params": params}, x[None], ORDER)[0])(x)
    in_order = np.asarray(jacobian)[np.ix_(ORDER, ORDER)]
    np.testing.assert_array_equal(in_order != 0, np.tri(D, k=-1, dtype=bool))


def test_unexpected_and_missing_labels_raise():
    x, label = binary(B, D), jnp.zeros(B, jnp.int32)
    with pytest.raises(ValueError, match="label"):
        FVSBN(D).init(jax.random.key(0), x, ORDER, label)
    with pytest.raises(ValueError, match="label"):
        FVSBN(D, num_classes=3).init(jax.random.key(0), x, ORDER)
