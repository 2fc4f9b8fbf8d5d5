from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import conditioners


@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (partial(conditioners.ConvConditioner, features=4), [(3, 4), (1, 4), (3, 5)]),
        (partial(conditioners.ResNetConditioner, features=4, blocks=1), [(3, 4), (3, 4), (3, 4), (3, 5)]),
        (
            partial(conditioners.ResNetConditioner, features=4, blocks=1, weight_norm=True),
            [(3, 4), (3, 4), (3, 4), (3, 5)],
        ),
    ],
)
def test_convolutional_conditioners_see_a_neighbourhood_padded_by_zeros(random_variables, make, reference):
    """Checks only the sides and the reach of the kernels; the sums themselves are Flax's."""
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 2)).astype(np.float32)
    module = make(out=5)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    apply = jax.jit(lambda x: module.apply(variables, x))
    assert apply(x).shape == (1, 9, 9, 5)
    changed = x.copy()
    changed[0, 4, 4] += 1.0
    reach = sum(size // 2 for size, _ in reference)
    rows = np.flatnonzero(np.any(apply(x) != apply(changed), axis=(0, 2, 3)))
    assert rows.min() == 4 - reach
    assert rows.max() == 4 + reach


def test_conv_equals_the_convolution_of_flax():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    ours, theirs = conditioners.Conv(6), nn.Conv(6, (3, 3))
    variables = theirs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5)


def test_weight_norm_learns_length_and_direction_of_each_kernel_apart():
    """Salimans & Kingma, eq. 2: w = g v / |v|, by hand with plain convolutions."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    normed, plain = (conditioners.ResNetConditioner(5, 4, 1, weight_norm=use) for use in (True, False))
    shapes = jax.eval_shape(normed.init, jax.random.key(1), x)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    by_hand = {}
    for index in range(4):
        v, bias = params[f"Conv_{index}"]["kernel"], params[f"Conv_{index}"]["bias"]
        g = params[f"Conv_{index}"]["length"]
        assert g.shape == v.shape[-1:]
        by_hand[f"Conv_{index}"] = {"kernel": g * v / np.sqrt((v**2).sum((0, 1, 2))), "bias": bias}
    expected = plain.apply({"params": by_hand}, x)
    found = normed.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(found).max()) > 0.1
    lengths = {**params, "Conv_3": {**params["Conv_3"], "length": 2.0 * params["Conv_3"]["length"]}}
    doubled = {**by_hand["Conv_3"], "kernel": 2.0 * by_hand["Conv_3"]["kernel"]}
    np.testing.assert_allclose(
        normed.apply({"params": lengths}, x),
        plain.apply({"params": {**by_hand, "Conv_3": doubled}}, x),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_conditioner_with_weight_norm_starts_at_zero_and_learns():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    module = conditioners.ResNetConditioner(5, 4, 1, weight_norm=True)
    params = module.init(jax.random.key(1), x)
    np.testing.assert_array_equal(module.apply(params, x), np.zeros((2, 4, 4, 5)))
    grads = jax.grad(lambda params: jnp.sum(jnp.sin(module.apply(params, x) + 1.0)))(params)["params"]
    assert float(jnp.abs(grads["Conv_3"]["length"]).min()) > 0
