"""Pictures of the data fit any number of examples, and show ten columns if there are enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import made, nice, vae
from gm_jax import recipes
from gm_jax.config.saved import updated
from gm_jax.data.sources import Spec
from gm_jax.plotting import layout

DIGITS = Spec("digits", (8, 8, 1), 17, 10, "")


@pytest.mark.parametrize(("num", "shown"), [(1, 1), (2, 2), (9, 9), (10, 10), (11, 10), (40, 40), (49, 40), (60, 50)])
def test_rows_hold_as_many_examples_as_fill_them(num, shown):
    x = jnp.arange(num)
    examples = layout.first_examples(x)
    np.testing.assert_array_equal(examples, x[:shown])
    grid = layout.rows_in_turn(examples, -examples)
    columns = min(10, num)
    assert grid.shape == (2 * shown // columns, columns)
    np.testing.assert_array_equal(grid[0::2].reshape(-1), examples)
    np.testing.assert_array_equal(grid[1::2].reshape(-1), -examples)


@pytest.mark.parametrize(("num", "shown"), [(1, 0), (2, 1), (7, 3), (20, 10), (50, 10)])
def test_pairs_share_no_example(num, shown):
    first, second = layout.pairs(jnp.arange(num))
    np.testing.assert_array_equal(first, np.arange(shown))
    np.testing.assert_array_equal(second, np.arange(shown, 2 * shown))


@pytest.mark.parametrize("experiment", [vae, made, nice])
@pytest.mark.parametrize("num", [1, 2, 12])
def test_every_picture_can_be_made_of_a_few_examples(experiment, num):
    changes = {"hidden": (4,) if experiment is not nice else (4, 4)}
    built = recipes.build(updated(experiment.CONFIG, changes), DIGITS)
    x = jnp.zeros((num, 8, 8, 1), jnp.uint8)
    state = jax.eval_shape(built.model.init, jax.random.key(0), {"x": x})
    for name, picture in built.pictures.items():
        grid = jax.eval_shape(picture, *state, jax.random.key(0), x)
        assert grid.examples.shape[2:] == (8, 8, 1), name
        assert grid.examples.shape[0] > 0 or num == 1
        assert grid.title, name
        assert len(grid.columns) in (0, grid.examples.shape[1]), name
