import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
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


def test_a_letter_is_any_size_and_the_number_of_examples_is_named():
    checks.check_outputs("the discriminator", (np.zeros(6), np.zeros((6, 9))), (6,), (6, "F"))
    for outputs, shown in ((np.zeros((6, 1)), r"\[6, 1\] and \[6, 9\]"), (np.zeros(5), r"\[5\] and \[6, 9\]")):
        wanted = rf"^the discriminator must return \[6\] and \[6, F\] for 6 examples, and returns {shown}\.$"
        with pytest.raises(UserError, match=wanted):
            checks.check_outputs("the discriminator", (outputs, np.zeros((6, 9))), (6,), (6, "F"))
    with pytest.raises(UserError, match=r"and returns \[6\] and \[6\]"):
        checks.check_outputs("the discriminator", (np.zeros(6), np.zeros(6)), (6,), (6, "F"))


def test_examples_of_another_shape_are_refused():
    checks.check_example((4, 4, 1), np.zeros((3, 4, 4, 1)))
    with pytest.raises(UserError, match=r"made for examples of shape \[4, 4\], and the data have \[4, 4, 1\]"):
        checks.check_example((4, 4), np.zeros((3, 4, 4, 1)))


def test_outputs_of_a_network_are_compared_with_their_shapes():
    checks.check_outputs("the encoder", (np.zeros((1, 2)), np.zeros((1, 3))), (1, 2), (1, 3))
    checks.check_outputs("the decoder", np.zeros((1, 2)), (1, 2))
    for outputs, shown in (
        (np.zeros((1, 2)), r"\[1, 2\]"),
        ((np.zeros((1, 2)), np.zeros((1, 2))), r"\[1, 2\] and \[1, 2\]"),
        ((np.zeros((1, 2)), None), r"\[1, 2\] and \[no array\]"),
    ):
        wanted = rf"the encoder must return \[1, 2\] and \[1, 3\] for one example, and returns {shown}\."
        with pytest.raises(UserError, match=wanted):
            checks.check_outputs("the encoder", outputs, (1, 2), (1, 3))
