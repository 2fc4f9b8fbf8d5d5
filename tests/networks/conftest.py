"""Fixtures for networks that must not look ahead, and for flows."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SEEDS = 8  # a relu may be dead for one seed


def _randomized(module, *inputs, seed=0):
    """Draws parameters, none of which is zero."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1]))) if len(leaf.shape) > 1 else 4
        return jnp.asarray(1.5 * rng.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return jax.tree.map(draw, shapes)


@pytest.fixture
def randomized():
    """Returns a function (module, *inputs, seed=0) -> params, none of which is zero."""
    return _randomized


@pytest.fixture
def dependencies():
    """Returns a function (image network) -> [D, D] bool: whether the outputs of position i depend on level j."""

    def measure(module):
        shape, num_dims = module.event_shape, int(np.prod(module.event_shape))

        def jacobian(params, x):
            outputs = lambda x: module.apply(params, x[None])[0].reshape(num_dims, -1)  # noqa: E731
            return jnp.abs(jax.jacrev(outputs)(x)).max(axis=1).reshape(num_dims, num_dims)

        x = jax.random.uniform(jax.random.key(0), (SEEDS, *shape), maxval=module.levels - 1.0)
        params = [_randomized(module, x[:1], seed=seed) for seed in range(SEEDS)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        return np.asarray(jax.jit(jax.vmap(jacobian))(stacked, x)).max(axis=0) != 0

    return measure


class AtRandom(NamedTuple):
    """A flow with random parameters on a batch, in 64 bits.

    Attributes:
        variables: none is zero.
        x: [B, ...] data.
        z: [B, ...] forward(x).
        log_det: [B] of forward at x.
        jacobian: [B, D, D] dz/dx by autodiff.
    """

    variables: dict
    x: np.ndarray
    z: np.ndarray
    log_det: np.ndarray
    jacobian: np.ndarray


def _random_variables(module, x, *, scale=0.3, seed=0):
    """Draws all variables at random, permutations and signs included."""
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, method="forward"), x)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "permutation":
            return rng.permuted(np.broadcast_to(np.arange(leaf.shape[-1], dtype=np.int32), leaf.shape), axis=-1)
        if path[-1].key == "sign":
            return rng.choice([-1.0, 1.0], leaf.shape)
        return scale * rng.normal(size=leaf.shape)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture
def random_variables():
    """Returns a function (flow module, x, *, scale=0.3, seed=0) -> variables in 64 bits, none of which is zero."""
    return _random_variables


@pytest.fixture
def check_flow(x64):
    """Returns a function (flow module, shape of an example, *, scale=0.3) -> AtRandom that checks both directions.

    To 1e-8, at data and at other latents, the log-determinants equal those of the Jacobians and the two directions are
    inverse to each other. The log-determinants are not zero.
    """

    def check(module, shape, *, scale=0.3):
        x = np.random.default_rng(1).normal(size=(3, *shape))
        latents = np.random.default_rng(2).normal(size=(3, math.prod(shape)))
        variables = _random_variables(module, x, scale=scale)

        def run(method, x):
            return module.apply(variables, x, method=method)

        def jacobian(method, x):
            one = lambda x: run(method, x[None])[0].reshape(-1)  # noqa: E731
            return jax.vmap(jax.jacrev(one))(x).reshape(len(x), x[0].size, x[0].size)

        @jax.jit
        def everything(x):
            z, log_det = run("forward", x)
            both = jnp.concatenate([z, latents])
            back, log_det_back = run("inverse", both)
            latents_again, _ = run("forward", back[len(x) :])
            return z, log_det, jacobian("forward", x), back, log_det_back, jacobian("inverse", both), latents_again

        z, log_det, jacobian_of_z, back, log_det_back, jacobian_of_x, latents_again = map(np.asarray, everything(x))
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian_of_z)[1], rtol=0, atol=1e-8)
        np.testing.assert_allclose(log_det_back, np.linalg.slogdet(jacobian_of_x)[1], rtol=0, atol=1e-8)
        np.testing.assert_allclose(back[: len(x)], x, rtol=0, atol=1e-8)
        np.testing.assert_allclose(latents_again, latents, rtol=0, atol=1e-8)
        assert np.abs(log_det).min() > 1e-2
        return AtRandom(variables, x, z, log_det, jacobian_of_z)

    return check


@pytest.fixture
def check_deep_chain():
    """Returns a function (flow module, shape of an example, *, scale) that checks the inverse in float32.

    Both directions return data and latents to 1e-4; the log-determinants are not constant.
    """

    def check(module, shape, *, scale):
        x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
        latents = np.random.default_rng(1).normal(size=(4, math.prod(shape))).astype(np.float32)
        variables = _random_variables(module, x, scale=scale)
        variables = jax.tree.map(lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, variables)

        @jax.jit
        def both_orders(x, latents):
            z, log_det = module.apply(variables, x, method="forward")
            back, log_det_back = module.apply(variables, jnp.concatenate([z, latents]), method="inverse")
            return z, log_det, back, log_det_back, *module.apply(variables, back[len(x) :], method="forward")

        z, log_det, back, log_det_back, latents_again, log_det_again = both_orders(x, latents)
        assert z.dtype == log_det.dtype == back.dtype == np.float32
        np.testing.assert_allclose(back[: len(x)], x, atol=1e-4)
        np.testing.assert_allclose(latents_again, latents, atol=1e-4)
        np.testing.assert_allclose(log_det_back[: len(x)], -log_det, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(log_det_again, -log_det_back[len(x) :], rtol=1e-4, atol=1e-3)
        assert np.ptp(log_det) > 0.1

    return check


@pytest.fixture
def distance_of_a_lit_pixel():
    """Returns a function (flow of 4 x 4 images) -> latent distance of lighting a pixel that was black for `init`."""

    def measure(module):
        x = np.random.default_rng(0).uniform(size=(32, 4, 4, 1)).astype(np.float32)
        x[:, 1, 2] /= 17  # black: only the noise of the lowest level
        lit = x[:1].copy()
        lit[:, 1, 2] = 1.0
        variables = jax.jit(lambda x: module.init(jax.random.key(0), x, method="forward"))(x)
        z, _ = jax.jit(lambda x: module.apply(variables, x, method="forward"))(np.concatenate([x[:1], lit]))
        return float(np.linalg.norm(z[1] - z[0]))

    return measure
