import jax.numpy as jnp
import numpy as np
from PIL import Image

from gm_jax.plotting import densities
from gm_jax.runner.experiment import Plane

LIMITS = [(-1.0, 3.0), (-2.0, 2.0)]


def log_density(params, model_state, x):
    """Four times as high on the right as on the left, and nothing above 0."""
    return jnp.where(x[:, 1] > 0.0, -jnp.inf, jnp.log(jnp.where(x[:, 0] > 1.0, 0.2, 0.05)))


def test_the_density_is_drawn_right_way_up():
    grid = densities.density_on_grid(Plane(log_density), {}, {}, LIMITS)
    rows, columns = grid.shape
    np.testing.assert_allclose(grid[: rows // 2, : columns // 2], 0.05, rtol=1e-5)
    np.testing.assert_allclose(grid[: rows // 2, columns // 2 :], 0.2, rtol=1e-5)
    assert not grid[rows // 2 :].any()
    cell = 4.0 * 4.0 / grid.size
    np.testing.assert_allclose(grid.sum() * cell, 1.0, rtol=1e-5)


def test_the_grid_is_pushed_line_by_line():
    lines = densities.pushed_grid(Plane(log_density, lambda params, model_state, z: 2.0 * z + params), 1.0, {})
    half = len(lines) // 2
    assert np.all(lines[:half, :, 0] == lines[:half, :1, 0])  # upright lines
    assert np.all(lines[half:, :, 1] == lines[half:, :1, 1])  # level ones
    np.testing.assert_allclose([lines.min(), lines.max()], [-5.0, 7.0], rtol=1e-6)


def test_with_a_way_from_the_latent_there_is_a_third_panel(tmp_path):
    x = np.random.default_rng(0).uniform((-1.0, -2.0), (3.0, 0.0), size=(500, 2))
    widths = []
    for push in (None, lambda params, model_state, z: z):
        path = tmp_path / "density.png"
        densities.draw(path, Plane(log_density, push), {}, {}, x)
        with Image.open(path) as picture:
            widths.append(picture.width)
    assert widths[1] > 1.3 * widths[0]
