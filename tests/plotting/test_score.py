"""Pictures of a score-based model of images: their shapes, and what a row is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import flow, path_objectives, path_sampling, score
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import gaussian_path
from gm_jax.plotting import score as plotting
from gm_jax.samplers import ode, time_grids

SHAPE = (2, 2, 1)


def draw(key, predict_fn, path, x_T):
    return ode.heun(predict_fn, path, x_T, time_grids.karras(path, 5))


MODEL = score.ScoreModel(
    network=DiffusionMLP(8, 1, num_classes=4),
    space=flow.symmetric_dequantization(levels=17),
    path=gaussian_path.edm(),
    shape=SHAPE,
    parameterization=path_objectives.preconditioned_prediction(sigma_data=0.5),
    times_fn=path_objectives.log_snr_times,
    sampler=path_sampling.PathSampler(draw),
    sigma_data=0.5,
    likelihood=score.ODELikelihood(),
    num_classes=3,
)
X = jnp.asarray(np.random.default_rng(0).integers(0, 17, (12, *SHAPE)), jnp.uint8)


def test_images_have_pictures_and_points_have_none():
    assert sorted(plotting.grids(MODEL)) == ["classes", "forward_path", "samples_by_steps"]
    assert sorted(plotting.grids(dataclasses.replace(MODEL, num_classes=None))) == ["forward_path", "samples_by_steps"]
    assert plotting.grids(dataclasses.replace(MODEL, shape=(2,))) == {}


@pytest.mark.slow
def test_a_row_runs_from_the_data_and_the_rows_of_samples_are_the_numbers_of_steps():
    params, state = MODEL.init(jax.random.key(0), {"x": X})
    grids = {
        name: jax.jit(picture)(params, state, jax.random.key(1), X) for name, picture in plotting.grids(MODEL).items()
    }
    assert grids["samples_by_steps"].row_labels() == [f"{count} steps" for count in plotting.NUM_STEPS]
    assert grids["classes"].row_labels() == ["class 0", "class 1", "class 2"]
    ratios = [float(label) for label in grids["forward_path"].columns]
    assert not any("e+" in label for label in grids["forward_path"].columns)
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.01 < 10 < ratios[-1]
    found = {name: grid.examples for name, grid in grids.items()}
    assert found["forward_path"].shape == (10, 10, *SHAPE)
    np.testing.assert_array_equal(found["forward_path"][:, 0], X[:10])
    assert np.any(np.asarray(found["forward_path"][:, -1]) != np.asarray(X[:10]))
    assert found["samples_by_steps"].shape == (len(plotting.NUM_STEPS), 10, *SHAPE)
    assert found["classes"].shape == (3, 10, *SHAPE)


def test_lines_and_arrows_of_normal_data_are_closed_forms():
    # The last layer starts at 0: the exact model of N(0, 0.5^2), whose flow only scales.
    model = dataclasses.replace(MODEL, shape=(2,), space=flow.no_dequantization(), num_classes=None)
    model = dataclasses.replace(model, network=DiffusionMLP(8, 1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
    params, state = model.init(jax.random.key(0), {"x": x})
    lines = jax.jit(plotting.flow_lines, static_argnums=(0, 4))(model, params, state, jax.random.key(1), 7)
    assert lines.shape == (60, 7, 2)
    np.testing.assert_allclose(lines, jnp.broadcast_to(lines[:1], lines.shape), rtol=0.02)
    found = plotting.score_field(model, params, state, x, sigma=0.25)
    np.testing.assert_allclose(found, -x / (0.5**2 + 0.25**2), rtol=1e-3)
