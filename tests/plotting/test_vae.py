"""Pictures of a VAE with a random encoder and decoder, so that every latent decodes to a different picture."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import decoder_likelihoods, vae
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder
from gm_jax.ops import binarization
from gm_jax.plotting import vae as plotting


def images(num=6):
    return jnp.asarray(np.random.default_rng(3).integers(0, 17, (num, 8, 8, 1)), jnp.uint8)


def random_vae():
    model = vae.VAE(
        encoder=MLPEncoder((16,), 3),
        decoder=MLPDecoder((16,), (8, 8, 1)),
        likelihood=decoder_likelihoods.bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17),
        latent_dim=3,
        objective=vae.elbo_objective(),
    )
    params, _ = jax.eval_shape(model.model.init, jax.random.key(0), {"x": images()})
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), params)


def test_interpolations_start_and_end_at_the_reconstructions():
    (model, params), x = random_vae(), images()
    path = plotting.interpolate(model, params, jax.random.key(0), x[:3], x[3:], num=5)
    whole = plotting.reconstruct(model, params, jax.random.key(0), x)
    assert path.shape == (3, 5, 8, 8, 1)
    assert whole.shape == x.shape
    np.testing.assert_allclose(path[:, 0], whole[:3], atol=1e-4)
    np.testing.assert_allclose(path[:, -1], whole[3:], atol=1e-4)
    z = model.encode(params, jax.random.key(0), x)[0]
    np.testing.assert_allclose(path[:, 2], model.decode(params, 0.5 * (z[:3] + z[3:])), atol=1e-4)


def test_a_traversal_changes_one_coordinate_at_a_time():
    model, params = random_vae()
    z, values = jnp.asarray([0.3, -0.2, 0.9]), jnp.asarray([-2.0, 0.9])
    pictures = plotting.traverse(model, params, z, dims=(2, 0), values=values)
    assert pictures.shape == (2, 2, 8, 8, 1)
    np.testing.assert_allclose(pictures[0, 1], model.decode(params, z[None])[0], atol=1e-4)
    np.testing.assert_allclose(pictures[1, 0], model.decode(params, jnp.asarray([[-2.0, -0.2, 0.9]]))[0], atol=1e-4)


def test_units_with_a_constant_posterior_mean_are_inactive():
    means = jax.random.normal(jax.random.key(0), (1000, 3)) * jnp.asarray([[1.0, 0.01, 0.2]])
    assert plotting.active_units(means + 5.0).tolist() == [True, False, True]


def test_grids_are_rows_of_examples_on_the_data_sets_scale():
    model, params = random_vae()
    for name, picture in plotting.grids(model, (8, 8, 1)).items():
        grid = np.asarray(picture(params, {}, jax.random.key(0), images(60)).examples)
        assert grid.shape[2:] == (8, 8, 1), name
        assert 0.0 <= grid.min() <= grid.max() <= 16.0, name
        assert np.ptp(grid) > 1.0, name


def test_reconstructions_lie_below_their_rows_of_data():
    (model, params), x = random_vae(), images(60)
    labelled = plotting.grids(model, (8, 8, 1))["reconstructions"](params, {}, jax.random.key(0), x)
    assert labelled.row_labels() == ["data", "reconstruction"] * 5
    grid = labelled.examples
    np.testing.assert_array_equal(grid[2], x[10:20])
    means = plotting.reconstruct(model, params, jax.random.key(0), x[:50])
    np.testing.assert_allclose(grid[3], means[10:20], rtol=1e-5)


def test_interpolations_stand_between_their_data():
    (model, params), x = random_vae(), images(8)
    grid = plotting.grids(model, (8, 8, 1))["interpolations"](params, {}, jax.random.key(0), x)
    assert grid.columns[:3] == ("data", "0.00", "0.11")
    np.testing.assert_array_equal(grid.examples[:, 0], x[:4])
    np.testing.assert_array_equal(grid.examples[:, -1], x[4:8])


def test_rows_of_a_traversal_are_labelled_with_their_dimension():
    (model, params), x = random_vae(), images(40)
    grid = jax.jit(plotting.grids(model, (8, 8, 1))["traversal"])(params, {}, jax.random.key(0), x)
    mean = model.encode(params, jax.random.key(0), x)[0]
    order = np.argsort(-np.var(mean, axis=0))
    assert grid.row_labels() == [f"z[{dim}]" for dim in order]
    assert grid.columns[0] == "-3"
    lowest = model.decode(params, mean[:1].at[0, order[1]].set(-3.0))
    np.testing.assert_allclose(grid.examples[1, 0], lowest[0], atol=1e-3)
