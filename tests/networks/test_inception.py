"""Each departure of this Inception; tests/evaluation/test_torch_fidelity.py tests the whole network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import inception


def test_outputs_and_parameters_are_as_many_as_in_the_checkpoint():
    shapes = inception.parameter_shapes()
    assert shapes["fc_kernel"].shape == (2048, 1008)
    # The file has 95,628,359 bytes: the parameters in float32, and some thousand bytes for names.
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert 0 <= 95_628_359 - 4 * count < 200_000


def test_average_pools_do_not_count_their_padding():
    x = jnp.ones((1, 4, 4, 2))
    np.testing.assert_allclose(inception.average_pool(x), x)


def test_normalisation_adds_a_thousandth_to_the_variance():
    norm = inception.FixedNorm()
    params = {"weight": [2.0], "bias": [0.5], "running_mean": [1.0], "running_var": [0.25]}
    y = norm.apply(
        {"params": jax.tree.map(jnp.asarray, params, is_leaf=lambda x: isinstance(x, list))},
        jnp.full((1, 1, 1, 1), 3.0),
    )
    np.testing.assert_allclose(y, (3.0 - 1.0) / np.sqrt(0.25 + 0.001) * 2.0 + 0.5, rtol=1e-6)


def test_the_last_block_uses_max_pooling_and_the_one_before_average_pooling():
    pools = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, inception.BlockE):
            pools[context.module.name] = context.module.pool
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        inception.parameter_shapes()
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert float(pools["Mixed_7b"](x)[0, 1, 1, 0]) == 4.0
    assert float(pools["Mixed_7c"](x)[0, 1, 1, 0]) == 8.0
    np.testing.assert_array_equal(pools["Mixed_7c"](x - 100.0)[0, 0, 0, 0], 4.0 - 100.0)  # padding is never the maximum


def test_missing_tensors_and_wrong_shapes_are_named():
    tensors = {"Conv2d_1a_3x3.conv.weight": np.zeros((32, 3, 5, 5), np.float32)}
    with pytest.raises(KeyError, match=r"Conv2d_1a_3x3\.bn\.bias"):
        inception.params_from_tensors(tensors)
    norm = {f"Conv2d_1a_3x3.bn.{name}": np.zeros(32) for name in ("weight", "bias", "running_mean", "running_var")}
    with pytest.raises(ValueError, match=r"Conv2d_1a_3x3\.conv\.weight has the shape \(5, 5, 3, 32\)"):
        inception.params_from_tensors({**tensors, **norm})
