import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.samplers import masked

ORDERS = jnp.array([[2, 0, 3, 1, 4], [4, 3, 2, 1, 0]])


def predict_from(seen):
    """Returns a network that records what it is given: the level is 1 + the number of visible dimensions."""

    def predict(x, is_masked):
        jax.debug.callback(lambda x, hidden: seen.append((np.array(x), np.array(hidden))), x, is_masked, ordered=True)
        return jnp.broadcast_to(1.0 + jnp.sum(~is_masked, axis=1)[:, None, None], (*x.shape, 1))

    return predict


def first_output(key, outputs, temperature):
    return outputs[:, 0].astype(jnp.int32)


def test_each_step_reveals_the_next_dimension_of_each_order():
    seen = []
    x = masked.sample(predict_from(seen), first_output, jax.random.key(0), ORDERS)
    jax.effects_barrier()
    # The j-th dimension of an order is drawn with j visible ones.
    np.testing.assert_array_equal(jnp.take_along_axis(x, ORDERS, axis=1), np.tile(np.arange(1, 6), (2, 1)))
    assert len(seen) == 5
    for j, (_, hidden) in enumerate(seen):
        for k, order in enumerate(np.asarray(ORDERS)):
            assert set(np.flatnonzero(~hidden[k])) == set(order[:j])


@pytest.mark.parametrize(("num_steps", "expected"), [(1, [1] * 5), (2, [1, 1, 3, 3, 3]), (3, [1, 1, 3, 4, 4])])
def test_a_step_reveals_several_dimensions_from_the_same_visible_ones(num_steps, expected):
    x = masked.sample(predict_from([]), first_output, jax.random.key(0), ORDERS, num_steps=num_steps)
    np.testing.assert_array_equal(jnp.take_along_axis(x, ORDERS, axis=1), np.tile(expected, (2, 1)))


def test_known_levels_stay_and_are_visible_from_the_start():
    seen = []
    known = jnp.array([[7, -1, -1, 0, -1], [-1, -1, 9, -1, -1]])
    x = np.asarray(masked.sample(predict_from(seen), first_output, jax.random.key(0), ORDERS, x=known))
    jax.effects_barrier()
    np.testing.assert_array_equal(x[known >= 0], known[known >= 0])
    assert (x[np.asarray(known) < 0] > 0).all()
    np.testing.assert_array_equal(seen[0][1], known < 0)


def test_steps_draw_with_noise_of_their_own():
    def draw(key, outputs, temperature):
        return jax.random.randint(key, outputs.shape[:1], 0, 1_000_000)

    x = masked.sample(predict_from([]), draw, jax.random.key(0), jnp.tile(jnp.arange(5), (2, 1)))
    assert len(np.unique(x)) == x.size


@pytest.mark.parametrize("num_steps", [0, 6])
def test_a_number_of_steps_that_does_not_fit_is_refused(num_steps):
    with pytest.raises(ValueError, match=f"num_steps must be between 1 and 5, got {num_steps}"):
        masked.sample(predict_from([]), first_output, jax.random.key(0), ORDERS, num_steps=num_steps)
