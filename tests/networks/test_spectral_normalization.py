from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.normalization import SpectralNorm, spectral_norm

RNG = np.random.default_rng(0)
B, C = 4, 3


def floats(*shape, scale=1.0, shift=0.0):
    return jnp.asarray(RNG.normal(shift, scale, shape), jnp.float32)


def drawn(module, x):
    """Draws all variables at random, biases included."""
    shapes = jax.eval_shape(partial(module.init, train=True), jax.random.key(0), x)
    return jax.tree.map(lambda leaf: floats(*leaf.shape, scale=0.5), shapes)


def spectral_layer(layer, x, *, num_iterations=1):
    """Returns (module, variables)."""
    module = SpectralNorm(layer, num_iterations)
    return module, drawn(module, x)


def the_layer(tree):
    (leaf,) = tree.values()
    return leaf


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Dense(7), (B, 5)), (nn.Conv(6, (4, 4), strides=2), (2, 8, 8, C))], ids=["dense", "conv"]
)
def test_training_converges_to_the_kernel_divided_by_its_largest_singular_value(layer, shape):
    x = floats(*shape)
    module, variables = spectral_layer(layer, x)
    state = {"spectral_norm": variables["spectral_norm"]}
    step = jax.jit(lambda state: module.apply({**variables, **state}, x, train=True, mutable=["spectral_norm"]))
    for _ in range(400):
        out, state = step(state)
    params = the_layer(variables["params"])
    kernel = np.asarray(params["kernel"], np.float64)
    sigma = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    divided = {"kernel": jnp.asarray(kernel / sigma, jnp.float32), "bias": params["bias"]}
    np.testing.assert_allclose(out, layer.apply({"params": divided}, x), rtol=1e-4, atol=1e-5)


def test_the_power_iteration_finds_the_singular_value_and_its_gradient(x64):
    # The ratio 3 : 2.9 of the first singular values makes the iteration slow.
    left, right = np.linalg.qr(RNG.normal(size=(6, 6)))[0], np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    matrix = jnp.asarray(left[:, :4] @ np.diag([3.0, 2.9, 0.5, 0.1]) @ right.T)
    start = jnp.asarray(RNG.normal(size=4))
    sigma, b = spectral_norm(matrix, start / jnp.linalg.norm(start), num_iterations=400)
    np.testing.assert_allclose(sigma, 3.0, rtol=1e-10)
    np.testing.assert_allclose(abs(b @ right[:, 0]), 1.0, rtol=1e-10)
    gradient = jax.grad(lambda matrix: spectral_norm(matrix, b, num_iterations=1)[0])(matrix)
    np.testing.assert_allclose(gradient, np.outer(left[:, 0], right[:, 0]), atol=1e-8)


def test_no_gradient_flows_through_the_iteration_before_it_converges(x64):
    matrix, start = jnp.asarray(RNG.normal(size=(5, 3))), jnp.array([0.6, 0.0, 0.8])
    a = np.asarray(matrix @ start) / np.linalg.norm(matrix @ start)
    b = np.asarray(a @ matrix) / np.linalg.norm(a @ matrix)
    assert abs(a @ matrix @ b - np.linalg.svd(matrix, compute_uv=False)[0]) > 1e-3
    gradient = jax.grad(lambda matrix: spectral_norm(matrix, start, num_iterations=1)[0])(matrix)
    np.testing.assert_allclose(gradient, np.outer(a, b), atol=1e-12)


def test_the_gradient_of_the_layer_flows_through_sigma(x64):
    # At the fixed point it equals the gradient of x W / sigma_1(W), differentiated through the SVD.
    x, kernel, weights = (jnp.asarray(RNG.normal(size=shape)) for shape in ((B, 5), (5, 3), (B, 3)))
    _, b = spectral_norm(kernel, jnp.full(3, 3**-0.5), num_iterations=500)
    module = SpectralNorm(nn.Dense(3, use_bias=False))
    shapes = jax.eval_shape(partial(module.init, train=True), jax.random.key(0), x)
    put = lambda value, tree: jax.tree.map(lambda leaf: value, tree)  # noqa: E731

    def loss(kernel):
        state = put(b, shapes["spectral_norm"])
        out = module.apply({"params": put(kernel, shapes["params"]), "spectral_norm": state}, x, train=False)
        return jnp.sum(weights * out)

    def exact(kernel):
        return jnp.sum(weights * (x @ kernel)) / jnp.linalg.svd(kernel, compute_uv=False)[0]

    np.testing.assert_allclose(loss(kernel), exact(kernel), rtol=1e-10)
    gradient = jax.grad(loss)(kernel)
    np.testing.assert_allclose(gradient, jax.grad(exact)(kernel), atol=1e-8)
    # A normalised layer does not depend on the length of its kernel.
    np.testing.assert_allclose(jnp.sum(gradient * kernel), 0.0, atol=1e-9)


def test_only_training_stores_the_iteration():
    x = floats(B, 5)
    module, variables = spectral_layer(nn.Dense(7), x)
    _, kept = module.apply(variables, x, train=True, mutable=["spectral_norm"])
    _, not_kept = module.apply(variables, x, train=False, mutable=["spectral_norm"])
    (old,), (new,), (same,) = (jax.tree.leaves(s) for s in (variables["spectral_norm"], kept, not_kept))
    np.testing.assert_array_equal(old, same)
    assert np.abs(np.asarray(old - new)).max() > 1e-3
    np.testing.assert_array_equal(module.apply(variables, x, train=False), module.apply(variables, x, train=False))


def test_the_iteration_starts_at_a_random_unit_vector():
    x = floats(B, 5)
    starts = [
        jax.tree.leaves(SpectralNorm(nn.Dense(7)).init(jax.random.key(seed), x, train=True)["spectral_norm"])[0]
        for seed in (0, 1)
    ]
    np.testing.assert_allclose([np.linalg.norm(start) for start in starts], 1.0, rtol=1e-5)
    assert np.abs(np.asarray(starts[0] - starts[1])).max() > 0.1


def test_init_stores_the_kernel_before_the_division():
    ones = nn.Dense(3, kernel_init=nn.initializers.ones)  # its largest singular value is sqrt(15)
    variables = SpectralNorm(ones).init(jax.random.key(0), floats(B, 5), train=True)
    np.testing.assert_array_equal(the_layer(variables["params"])["kernel"], np.ones((5, 3)))


def test_three_iterations_equal_three_calls():
    x = floats(B, 5)
    module, variables = spectral_layer(nn.Dense(7), x)
    state = {"spectral_norm": variables["spectral_norm"]}
    for _ in range(3):
        out, state = module.apply({**variables, **state}, x, train=True, mutable=["spectral_norm"])
    at_once = SpectralNorm(nn.Dense(7), num_iterations=3).apply(variables, x, train=False)
    np.testing.assert_allclose(out, at_once, rtol=1e-5)


def test_a_kernel_of_zeros_gives_the_bias_and_a_finite_gradient():
    x = floats(B, 5)
    module, variables = spectral_layer(nn.Dense(7), x)
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    apply = lambda params: module.apply({**variables, "params": params}, x, train=False)  # noqa: E731
    np.testing.assert_array_equal(apply(params), np.zeros((B, 7)))


def test_bfloat16_compute_keeps_float32_parameters_and_state():
    x = floats(B, 5)
    module = SpectralNorm(nn.Dense(7, dtype=jnp.bfloat16))
    out, variables = jax.eval_shape(partial(module.init_with_output, train=True), jax.random.key(0), x)
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_jit_and_vmap_agree_with_the_plain_call():
    x = floats(3, B, 5)
    module, variables = spectral_layer(nn.Dense(7), x[0])
    function = partial(module.apply, variables, train=False)
    plain = jnp.stack([function(row) for row in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(x), plain, rtol=1e-5, atol=1e-5)
