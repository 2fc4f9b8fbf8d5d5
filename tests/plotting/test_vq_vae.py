"""Pictures of a VQ-VAE, with random networks."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.plotting import vq_vae as plotting
from tests.models.test_vq_vae import IMAGES, KEY, certain, created, family


def test_reconstructions_stand_below_the_data_and_are_decoded_codes():
    model = family()
    params, model_state = created(model)
    grid = plotting.grids(model)["reconstructions"](params, model_state, KEY, jnp.asarray(IMAGES))
    assert grid.examples.shape == (2, 10, 2, 2, 1)
    np.testing.assert_array_equal(grid.examples[0], IMAGES[:10])
    codes = model.codes(params, model_state, KEY, jnp.asarray(IMAGES[:10]))
    np.testing.assert_allclose(grid.examples[1], model.decode(params, model_state, codes), rtol=1e-6)
    assert grid.row_labels() == ["data", "reconstruction"]


def test_codes_that_keep_everything_reconstruct_the_data():
    model = certain()
    params, model_state = created(model)
    found = jax.jit(lambda x: plotting.reconstruct(model, params, model_state, KEY, x))(jnp.asarray(IMAGES))
    np.testing.assert_allclose(found, IMAGES, atol=1e-5)
