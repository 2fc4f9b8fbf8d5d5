import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import levels


@pytest.mark.parametrize("count", [2, 17, 256])
def test_ranges_are_met_at_both_ends_and_every_level_comes_back(count):
    x = jnp.arange(count).astype(jnp.uint8)
    unit, symmetric = levels.to_unit(x, levels=count), levels.to_symmetric(x, levels=count)
    assert (unit[0], unit[-1], symmetric[0], symmetric[-1]) == (0.0, 1.0, -1.0, 1.0)
    np.testing.assert_allclose(unit, np.arange(count) / (count - 1), rtol=1e-6)
    np.testing.assert_allclose(levels.symmetric_to_unit(symmetric), unit, atol=1e-7)
    np.testing.assert_array_equal(levels.unit_to_symmetric(unit), symmetric)
    back = levels.from_symmetric(symmetric, levels=count)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, x)


def test_values_are_rounded_to_the_nearest_level_and_held_to_the_range():
    x = jnp.array([-3.0, -0.4, 0.6, 2.4, 99.0])
    np.testing.assert_array_equal(levels.nearest_level(x, levels=4), [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(levels.from_symmetric(jnp.array([-2.0, 0.1, 2.0]), levels=17), [0, 9, 16])


def test_the_measure_says_what_a_probability_is_of():
    assert [levels.measure(count) for count in (2, 17, None)] == ["binary", "17 levels", "continuous"]
