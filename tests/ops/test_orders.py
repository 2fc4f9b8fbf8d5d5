import numpy as np
import pytest

from gm_jax.ops import orders


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (4, 4, 3), (7,), (5, 2)])
def test_each_order_is_a_permutation(shape):
    for name, order in orders.named(shape).items():
        np.testing.assert_array_equal(np.sort(order), np.arange(np.prod(shape)), err_msg=name)
        assert order.dtype == np.int32
    assert ("spiral" in orders.named(shape)) == (len(shape) == 3)


def test_columns_are_read_from_top_to_bottom():
    np.testing.assert_array_equal(orders.column((2, 3, 1)), [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(orders.column((2, 2, 2)), [0, 1, 4, 5, 2, 3, 6, 7])


def test_a_spiral_starts_in_the_centre_and_ends_in_the_first_corner():
    # 0 1 2 / 3 4 5 / 6 7 8, clockwise from the corner inwards, in reverse.
    np.testing.assert_array_equal(orders.spiral((3, 3, 1)), [4, 3, 6, 7, 8, 5, 2, 1, 0])
    places = orders.spiral((4, 5, 1))
    steps = np.abs(np.diff(places // 5)) + np.abs(np.diff(places % 5))
    assert (steps == 1).all()
    np.testing.assert_array_equal(orders.spiral((1, 2, 3)), [3, 4, 5, 0, 1, 2])


def test_a_random_order_depends_on_its_seed_alone():
    np.testing.assert_array_equal(orders.random((4, 4, 1)), orders.random((16,)))
    assert (orders.random((4, 4, 1)) != orders.random((4, 4, 1), seed=1)).any()


def test_a_sequence_has_no_columns():
    with pytest.raises(ValueError, match=r"need an image \[H, W, C\], not \[7\]"):
        orders.column((7,))
