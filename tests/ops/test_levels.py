import doctest

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import levels


@pytest.mark.parametrize("count", [2, 17, 256])
def test_both_ends_are_exact_and_every_level_round_trips(count):
    x = jnp.arange(count).astype(jnp.uint8)
    unit, symmetric = levels.to_unit(x, levels=count), levels.to_symmetric(x, levels=count)
    assert (unit[0], unit[-1], symmetric[0], symmetric[-1]) == (0.0, 1.0, -1.0, 1.0)
    np.testing.assert_allclose(unit, np.arange(count) / (count - 1), rtol=1e-6)
    np.testing.assert_allclose(levels.symmetric_to_unit(symmetric), unit, atol=1e-7)
    np.testing.assert_array_equal(levels.unit_to_symmetric(unit), symmetric)
    back = levels.from_symmetric(symmetric, levels=count)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, x)


def test_values_are_rounded_to_the_nearest_level_within_the_range():
    x = jnp.array([-3.0, -0.4, 0.6, 2.4, 99.0])
    np.testing.assert_array_equal(levels.nearest_level(x, levels=4), [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(levels.from_symmetric(jnp.array([-2.0, 0.1, 2.0]), levels=17), [0, 9, 16])


def test_the_dtype_of_the_result_can_be_chosen():
    x = jnp.arange(1000)
    back = levels.from_symmetric(levels.to_symmetric(x, levels=1000), levels=1000, dtype=jnp.int32)
    assert back.dtype == jnp.int32
    np.testing.assert_array_equal(back, x)
    for scale in (levels.to_unit, levels.to_symmetric):
        assert scale(x, levels=1000, dtype=jnp.float16).dtype == jnp.float16


def test_the_measure_names_what_the_probability_is_about():
    assert doctest.testmod(levels).failed == 0
    assert [levels.measure(count) for count in (2, 17, None)] == ["binary", "17 levels", "continuous"]
