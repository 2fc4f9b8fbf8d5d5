"""What the tests of networks that must not look ahead share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SEEDS = 8  # a relu may be dead for one; what is seen, some seed sees


def _randomized(module, *inputs, seed=0):
    """Parameters of which none is zero."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1]))) if len(leaf.shape) > 1 else 4
        return jnp.asarray(1.5 * rng.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return jax.tree.map(draw, shapes)


@pytest.fixture
def randomized():
    """(module, *inputs, seed=0) -> params."""
    return _randomized


@pytest.fixture
def dependencies():
    """(image network) -> [D, D] bool by gradients: do the outputs of position i depend on the level of position j?"""

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
