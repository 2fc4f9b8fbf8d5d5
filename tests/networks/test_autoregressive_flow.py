import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.networks.autoregressive_flow import AutoregressiveFlow, AutoregressiveLayer
from gm_jax.networks.made import mask_sets


def layer(dim, *, hidden=(7,), **settings):
    return AutoregressiveLayer(dim, hidden, 2.0, **settings)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3, 1)])
def test_log_determinants_equal_autodiff_and_both_directions_are_inverse(check_flow, shape, inverted):
    found = check_flow(AutoregressiveFlow(shape, (6,), 2, inverted=inverted), shape)
    assert np.ptp(found.log_det) > 1e-3 or shape == (1,)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_jacobian_of_a_layer_is_triangular_in_its_order(check_flow, reverse, inverted):
    found = check_flow(layer(4, reverse=reverse, inverted=inverted), (4,))
    depends = np.abs(found.jacobian).max(axis=0) != 0
    expected = np.tril(np.ones((4, 4), bool))
    np.testing.assert_array_equal(depends, expected.T if reverse else expected)


def test_in_a_block_every_dimension_depends_on_every_other(random_variables, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 4)))
    flow = AutoregressiveFlow((4,), (16,), 1)
    variables = random_variables(flow, x)
    jacobians = jax.vmap(jax.jacobian(lambda x: flow.apply(variables, x[None], method="forward")[0][0]))(x)
    assert np.abs(jacobians).max(axis=0).min() > 1e-6


def test_the_inverse_flow_with_the_same_parameters_is_the_inverse(random_variables, x64):
    x = np.random.default_rng(0).normal(size=(6, 4))
    maf, iaf = layer(4), layer(4, inverted=True)
    variables = random_variables(maf, x)
    for one, other in (("forward", "inverse"), ("inverse", "forward")):
        ours, theirs = maf.apply(variables, x, method=one), iaf.apply(variables, x, method=other)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_density_is_a_product_of_normal_conditionals(random_variables, x64):
    x = np.random.default_rng(0).normal(size=(5, 3))
    module = layer(3, hidden=(8, 8), reverse=True)
    variables = random_variables(module, x)
    z, log_det = module.apply(variables, x, method="forward")
    found = stats.norm.logpdf(z).sum(axis=1) + log_det

    params = {name: np.asarray(leaf) for name, leaf in variables["params"]["network"].items()}
    masks = jax.tree.map(lambda leaf: leaf[0], mask_sets(np.array([[2, 1, 0]]), (8, 8)))
    expected = np.zeros(5)
    for i in range(3):
        known = np.where(np.arange(3) > i, x, np.nan_to_num(np.inf))  # a value that nothing may read
        h, degrees = known, masks.positions
        for k, after in enumerate(masks.degrees):
            kernel = params[f"kernel_{k}"] * (degrees[:, None] <= after[None])
            h, degrees = np.maximum(np.where(np.abs(h) < 1e300, h, 0.0) @ kernel + params[f"bias_{k}"], 0.0), after
        reads = degrees < masks.positions[i]
        shift, raw = (h[:, reads] @ params["kernel_2"][reads, o * 3 + i] + params["bias_2"][o * 3 + i] for o in (0, 1))
        scale = np.exp(-2.0 * np.tanh(raw / 2.0))
        expected += stats.norm.logpdf(x[:, i], -shift * scale, scale)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_linear_layer_whitens_a_normal_density(x64):
    rng = np.random.default_rng(0)
    root = np.tril(0.5 * rng.normal(size=(4, 4)), -1) + np.diag([0.7, 1.2, 0.9, 1.4])
    mean, x = rng.normal(size=4), rng.normal(size=(6, 4))
    whiten = np.linalg.inv(root)
    scales = np.diag(whiten)
    params = {  # z = L^-1 (x - m): each dimension is scaled by the diagonal of L^-1, and shifted by the rest
        "kernel_0": np.concatenate([(whiten - np.diag(scales)).T, np.zeros((4, 4))], axis=1),
        "bias_0": np.concatenate([-whiten @ mean, 2.0 * np.arctanh(np.log(scales) / 2.0)]),
    }
    z, log_det = layer(4, hidden=()).apply({"params": {"network": params}}, jnp.asarray(x), method="forward")
    expected = stats.multivariate_normal.logpdf(x, mean, root @ root.T)
    np.testing.assert_allclose(stats.norm.logpdf(z).sum(axis=1) + log_det, expected, rtol=1e-10)


def test_a_deep_chain_is_invertible_in_float32(check_deep_chain):
    check_deep_chain(AutoregressiveFlow((4,), (8,), 8), (4,), scale=0.1)


def test_init_standardises_its_batch():
    x = 5.0 * jax.random.normal(jax.random.key(0), (64, 3)) + jnp.array([[1.0, -20.0, 300.0]])
    module = AutoregressiveFlow((3,), (6,), 2)
    variables = jax.jit(lambda x: module.init(jax.random.key(1), x, method="forward"))(x)
    z, _ = jax.jit(lambda x: module.apply(variables, x, method="forward"))(x)
    # The layers start as the identity.
    np.testing.assert_allclose(jnp.mean(z, axis=0), np.zeros(3), atol=1e-4)
    np.testing.assert_allclose(jnp.var(z, axis=0), np.ones(3), rtol=1e-3)
