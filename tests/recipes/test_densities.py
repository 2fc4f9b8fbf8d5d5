"""Every density names the space that it is a density of, because the unit of the space is the unit of the number."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import recipes
from gm_jax.config.saved import updated
from gm_jax.data.sources import Spec
from gm_jax.models import decoder_likelihoods
from gm_jax.recipes.configs import SpatialAutoencoderConfig, UNetConfig
from gm_jax.runner.run import abstract_batch

DIGITS = Spec("digits", (8, 8, 1), 17, 10, "")
POINTS = Spec("toy:two_moons", (2,), None, None, "")
CAPTIONS = Spec("captions", (32, 32, 3), 256, None, "", tokens=12, vocabulary=35)
SPATIAL = SpatialAutoencoderConfig(log_var=-5.0)

DENSITIES = [
    ("vae", {"decoder": "normal"}, DIGITS, "[0,16]^64"),
    ("vae", {"decoder": "normal", "log_var": -4.0}, DIGITS, "[0,16]^64"),
    ("vae", {}, POINTS, "R^2"),
    ("beta_vae", {"decoder": "normal"}, DIGITS, "[0,16]^64"),
    ("iwae", {"decoder": "normal"}, DIGITS, "[0,16]^64"),
    ("nice", {}, POINTS, "R^2"),
    ("realnvp", {}, POINTS, "R^2"),
    ("spline_flow", {}, POINTS, "R^2"),
    ("maf", {}, POINTS, "R^2"),
    ("iaf", {}, POINTS, "R^2"),
    ("ebm", {}, POINTS, "R^2"),
    ("ebm", {"objective": "nce"}, POINTS, "R^2"),
    ("minimax_ebm", {}, POINTS, "R^2"),
    ("gan", {}, DIGITS, "[0,1]^64"),
    ("gan", {}, POINTS, "R^2"),
    ("improved_gan", {}, DIGITS, "[0,1]^64"),
    ("wgan_gp", {}, POINTS, "R^2"),
    ("ddpm", {}, POINTS, "R^2"),
    ("latent_diffusion", {}, DIGITS, "[0,16]^64"),
    ("latent_diffusion", {}, POINTS, "R^2"),
    ("latent_diffusion", {"autoencoder": SPATIAL, "network": UNetConfig()}, DIGITS, "[0,16]^64"),
    ("text_to_image", {}, CAPTIONS, "[0,255]^3072"),
]


def built(name, choices, spec):
    return recipes.build(updated(importlib.import_module(f"experiments.{name}").CONFIG, choices), spec)


def likelihoods(experiment, spec):
    state = jax.eval_shape(experiment.model.init, jax.random.key(0), abstract_batch(spec, 4))
    x = abstract_batch(spec, 4)["x"]
    further = [one.log_prob for one in experiment.evaluations if hasattr(one, "log_prob")]
    return [jax.eval_shape(fn, *state, jax.random.key(0), x) for fn in (experiment.model.log_prob, *further)]


@pytest.mark.parametrize(("name", "choices", "spec", "space"), DENSITIES)
def test_every_density_states_its_space_once(name, choices, spec, space):
    experiment = built(name, choices, spec)
    for likelihood in likelihoods(experiment, spec):
        assert likelihood.measure == "continuous"
        stated = [value for key, value in (*likelihood.settings, *experiment.settings.items()) if key == "space"]
        assert stated == [space]


@pytest.mark.parametrize("name", ["vae", "made", "pixelcnn", "wavenet", "transformer", "nice", "glow", "ddpm"])
def test_a_probability_of_levels_states_no_space(name):
    experiment = built(name, {}, DIGITS)
    for likelihood in likelihoods(experiment, DIGITS):
        assert likelihood.measure != "continuous"
        assert "space" not in {**dict(likelihood.settings), **experiment.settings}


def test_the_density_of_a_normal_decoder_is_in_the_unit_that_it_states():
    # One pixel of 5 levels and a mean of 0.5 on [0, 1], which is 2 on [0, 4]: the standard deviation is 4 times larger.
    likelihood = decoder_likelihoods.normal(levels=5, log_var=2 * math.log(0.3))
    raw = jnp.asarray([[3]], jnp.uint8)
    nll = likelihood.nll(likelihood.prepare(jax.random.key(0), raw), jnp.asarray([[0.5]]))
    std = 4 * 0.3
    by_hand = 0.5 * ((3 - 2) / std) ** 2 + math.log(std) + 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(nll, [by_hand], rtol=1e-5)
    assert likelihood.side == "[0,4]"


def test_the_picture_of_an_energy_based_model_is_a_density_before_log_z_is_known():
    choices = {"hidden": (8,), "chains": {"persistent": 0}}
    experiment = built("ebm", choices, POINTS)
    params, state = experiment.model.init(jax.random.key(0), {"x": jnp.zeros((4, 2))})
    cell = 0.2
    middles = np.arange(-16.0, 16.0, cell) + cell / 2
    grid = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2).astype(np.float32)
    density = np.exp(np.asarray(experiment.pictures["density"].log_density(params, state, grid), np.float64))
    np.testing.assert_allclose(density.sum() * cell**2, 1.0, rtol=1e-3)
