import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.label_bias import LabelBias, add_bias, halves


def test_each_class_has_a_vector_that_starts_at_zero_and_learns():
    module, label = LabelBias(3, 4), jnp.asarray([2, 0, 2])
    params = module.init(jax.random.key(0), label)
    np.testing.assert_array_equal(module.apply(params, label), np.zeros((3, 4)))
    params = jax.tree.map(lambda leaf: leaf + jnp.arange(12.0).reshape(3, 4), params)
    np.testing.assert_array_equal(module.apply(params, label)[:, 0], [8, 0, 8])
    gradient = jax.grad(lambda params: jnp.sum(module.apply(params, label)))(params)
    np.testing.assert_array_equal(jax.tree.leaves(gradient)[0][:, 0], [1, 0, 2])


def test_without_classes_and_labels_there_is_no_bias():
    assert LabelBias(None, 4).apply({}, None) is None
    x = jnp.ones((2, 3, 4))
    assert add_bias(x, None) is x
    assert halves(None) == (None, None)


def test_unexpected_and_missing_labels_raise():
    with pytest.raises(ValueError, match="num_classes"):
        LabelBias(3, 4).init(jax.random.key(0), None)
    with pytest.raises(ValueError, match="num_classes"):
        LabelBias(None, 4).init(jax.random.key(0), jnp.zeros(2, jnp.int32))


def test_a_bias_is_added_to_every_place_of_its_example():
    bias = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    for shape in ((2, 2), (2, 5, 2), (2, 3, 4, 2)):
        y = add_bias(jnp.zeros(shape), bias)
        assert y.shape == shape
        np.testing.assert_array_equal(y[1].reshape(-1, 2), np.tile([3.0, 4.0], (y[1].size // 2, 1)))
    first, second = halves(bias)
    np.testing.assert_array_equal(first, bias[:, :1])
    np.testing.assert_array_equal(second, bias[:, 1:])
