import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import diffusion, diffusion_space
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process
from gm_jax.plotting import diffusion as plotting
from gm_jax.samplers.ddim import ddim
from gm_jax.samplers.ddpm import ancestral

T = 60
SCHEDULE = diffusion_process.linear_schedule(T)
KEY = jax.random.key(0)


def model_of(shape, num_classes=None, space=None):
    labels = None if num_classes is None else num_classes + 1
    return diffusion.Diffusion(
        network=DiffusionMLP(8, 1, num_classes=labels),
        space=space or diffusion_space.pixels(levels=17),
        schedule=SCHEDULE,
        shape=shape,
        parameterization=diffusion.v_prediction(),
        sampler=ancestral(SCHEDULE, 20, variance_fn=diffusion_process.posterior_variance),
        variance_fn=diffusion_process.posterior_variance,
        num_classes=num_classes,
        guidance=0.5,
    )


MODEL = model_of((2, 2, 1), num_classes=3)


def random_params(model, x):
    shapes, _ = jax.eval_shape(model.model.init, KEY, {"x": x})
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def images(num=20):
    return jnp.asarray(np.random.default_rng(3).integers(0, 17, (num, 2, 2, 1)), jnp.uint8)


def test_chain_times_begin_with_the_data_and_end_with_noise():
    times = plotting.chain_times(1000, 10)
    assert times[0] == 0
    assert times[-1] == 1000
    assert np.all(np.diff(times) > 0)


def test_a_chain_of_transitions_has_the_marginals():
    x = jnp.full((40_000, 1), 2.0)
    model = model_of((1,), space=diffusion_space.points())
    times = jnp.asarray([0, 3, 20, T])
    chain = np.asarray(jax.jit(lambda x: plotting.diffuse_along(model, KEY, x, times))(x), np.float64)
    a_t, sigma_t = (np.asarray(part) for part in diffusion_process.signal_and_noise(SCHEDULE.at(times)))
    np.testing.assert_allclose(chain[:, :, 0].mean(axis=0), 2 * a_t, atol=0.02)
    np.testing.assert_allclose(chain[:, :, 0].std(axis=0), sigma_t, atol=0.02)
    # It is one chain, not a new draw at each time.
    correlation = np.corrcoef(chain[:, 1, 0], chain[:, 2, 0])[0, 1]
    np.testing.assert_allclose(correlation, a_t[2] / a_t[1] * sigma_t[1] / sigma_t[2], atol=0.02)


def test_pictures_have_their_shapes_and_their_known_columns():
    x = images()
    params, pictures = random_params(MODEL, x), plotting.grids(MODEL)
    grids = {name: jax.jit(picture)(params, {}, KEY, x) for name, picture in pictures.items()}
    assert grids["samples_by_steps"].row_labels() == ["10 steps", "20 steps", "50 steps", "60 steps"]
    assert grids["guidance"].row_labels()[:3] == ["no label", "w = 0 (no guidance)", "w = 0.5"]
    assert grids["forward_chain"].columns[::9] == ("t = 0", "t = 60")
    assert grids["reverse_chain"].columns[::9] == ("t = 60", "sample")
    assert grids["classes"].row_labels() == ["class 0", "class 1", "class 2"]
    drawn = {name: grid.examples for name, grid in grids.items()}
    assert {name: grid.shape[:2] for name, grid in drawn.items()} == {
        "forward_chain": (10, 10),
        "reverse_chain": (10, 10),
        "samples_by_steps": (4, 10),  # 10, 20, 50 and T = 60
        "classes": (3, 10),
        "guidance": (7, 3),
    }
    assert all(grid.shape[2:] == (2, 2, 1) and grid.dtype == jnp.uint8 for grid in drawn.values())
    np.testing.assert_array_equal(drawn["forward_chain"][:, 0], x[:10])
    samples = jax.jit(MODEL.model.sample, static_argnums=3)(params, {}, KEY, 5)
    np.testing.assert_array_equal(drawn["reverse_chain"][::2, -1], samples)
    np.testing.assert_array_equal(drawn["reverse_chain"][1::2, -1], samples)
    assert np.all(np.asarray(drawn["reverse_chain"][:, 0] != drawn["reverse_chain"][:, -1]).any(axis=(1, 2, 3)))


@pytest.mark.slow
def test_rows_of_pictures_are_samples_of_their_class_steps_and_weight():
    x = images()
    params, pictures = random_params(MODEL, x), plotting.grids(MODEL)
    names = ("classes", "samples_by_steps", "guidance")
    drawn = {name: jax.jit(pictures[name])(params, {}, KEY, x).examples for name in names}

    def draw(n, label=None, **settings):
        model = dataclasses.replace(MODEL, **settings)
        return jax.jit(lambda params: model.sample(params, {}, KEY, n, label=label))(params)

    classes = draw(30, label=jnp.repeat(jnp.arange(3), 10))
    np.testing.assert_array_equal(drawn["classes"], classes.reshape(3, 10, 2, 2, 1))
    for row, num_steps in zip(drawn["samples_by_steps"], (10, 20, 50, T), strict=True):
        np.testing.assert_array_equal(row, draw(10, sampler=ddim(SCHEDULE, num_steps)))
    for row, weight in zip(drawn["guidance"], plotting.WEIGHTS, strict=True):
        by_weight = draw(3, label=jnp.arange(3), guidance=weight)
        # One level more or less where two ways of compiling round apart.
        assert np.abs(by_weight.astype(np.int32) - row.astype(np.int32)).max() <= 1
    assert all(len(np.unique(drawn[name], axis=0)) > 1 for name in names)


def test_points_have_no_grids():
    assert plotting.grids(model_of((2,), space=diffusion_space.points())) == {}
