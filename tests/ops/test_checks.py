import jax
import jax.numpy as jnp
import pytest

from gm_jax.ops import checks


@pytest.mark.parametrize("shape", [(3, 1), (3, 0), (2, 4, 4, 1), (1,) * 9])
def test_any_event_of_at_least_one_axis_passes(shape):
    checks.assert_batch_of_events(jnp.zeros(shape), jnp.zeros(shape, jnp.int32))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_missing_axis_is_refused_with_the_shape(shape):
    with pytest.raises(AssertionError, match=r"at least one event axis; got shape \(.*\)"):
        checks.assert_batch_of_events(jnp.zeros((3, 2)), jnp.zeros(shape))


def test_a_missing_axis_is_found_while_tracing():
    with pytest.raises(AssertionError):
        jax.jit(checks.assert_batch_of_events)(jnp.zeros(3))


def test_two_levels_are_the_fewest():
    checks.check_levels(2)
    with pytest.raises(ValueError, match="at least 2; got 1"):
        checks.check_levels(1)
