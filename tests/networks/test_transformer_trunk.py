"""The causal and the masked transformer have the parameters that they had before they shared a trunk."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.masked_transformer import MaskedTransformer
from gm_jax.networks.transformer import CausalTransformer

LEVELS = jnp.arange(32).reshape(2, 4, 4, 1) % 5
SETTINGS = {"features": 8, "heads": 2, "layers": 2, "dropout": 0.1}


def causal():
    return CausalTransformer((4, 4, 1), 5, 3, num_classes=4, **SETTINGS), (LEVELS, jnp.array([1, 3]))


def masked():
    flat = LEVELS.reshape(2, 16)
    return MaskedTransformer((4, 4, 1), 5, 3, **SETTINGS), (flat, flat % 2 == 0)


# Of the paths and shapes of all parameters, and the sum of the outputs of random ones, by the code before the trunk.
@pytest.mark.parametrize(
    ("make", "tree", "total"),
    [(causal, "9d576336dafea4f3", 2.49555), (masked, "81861ef50e4d3a40", -1.16123)],
    ids=["causal", "masked"],
)
def test_parameters_and_outputs_are_those_of_checkpoints(make, tree, total):
    network, inputs = make()
    variables = network.init(jax.random.key(3), *inputs)
    leaves = sorted((jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(variables))
    assert hashlib.sha256(repr(leaves).encode()).hexdigest()[:16] == tree
    # Parameters that depend on no generator, so that a version of jax with other random numbers gives the same total.
    fixed = jax.tree.map(
        lambda leaf: jnp.asarray(np.sin(np.arange(leaf.size)).reshape(leaf.shape), leaf.dtype), variables
    )
    weights = np.cos(np.arange(2 * 16 * 3)).reshape(-1)
    found = float(np.sum(weights * np.asarray(network.apply(fixed, *inputs), np.float64).reshape(-1)))
    assert found == pytest.approx(total, rel=1e-4)
