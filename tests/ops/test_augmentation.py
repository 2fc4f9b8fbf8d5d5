"""Resampled images against loops over pixels with scipy, and what each map does to a smooth spot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gm_jax.ops import augmentation

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 10, 12, 2))


def by_hand(image, matrix):
    """One channel [H, W]: every step as the source describes it, one line of pixels after the other."""
    h = augmentation.SYM6

    def double(line):
        line = np.pad(line, len(line) - 1, mode="reflect")
        zeros = np.zeros(2 * len(line) - 1)
        zeros[::2] = line
        return np.convolve(np.pad(zeros, 6), h, mode="valid")

    def halve(line):
        return np.convolve(np.pad(line, 5), h[::-1], mode="valid")[::2][3:-3]

    large = np.apply_along_axis(double, 0, np.apply_along_axis(double, 1, image))
    rows, columns = (2 * (side + 6) for side in image.shape)
    found = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            # From a place of the doubled image to the image, through the map, and back: doubling moves it by 1/2.
            x, y = (j + 0.5 - columns / 2 + 0.5) / 2, (i + 0.5 - rows / 2 + 0.5) / 2
            x, y, _ = matrix @ [x, y, 1.0]
            place = [[2 * y - 0.5 + large.shape[0] / 2 - 0.5], [2 * x - 0.5 + large.shape[1] / 2 - 0.5]]
            found[i, j] = ndimage.map_coordinates(large, place, order=1, mode="grid-constant", cval=0.0)[0]
    return np.apply_along_axis(halve, 0, np.apply_along_axis(halve, 1, found))


def each(*values):
    return tuple(jnp.asarray(value, jnp.result_type(float)) for value in values)


def test_the_filter_is_orthonormal_over_even_shifts():
    h = augmentation.SYM6
    for shift in range(0, 12, 2):
        np.testing.assert_allclose(h[shift:] @ h[: len(h) - shift], float(shift == 0), atol=1e-12)
    np.testing.assert_allclose(h.sum(), np.sqrt(2), rtol=1e-12)


def test_the_identity_returns_the_images(x64):
    found = augmentation.resample(jnp.asarray(IMAGES), jnp.tile(jnp.eye(3)[None], (3, 1, 1)))
    np.testing.assert_allclose(found, IMAGES, atol=1e-10)


def test_any_map_is_that_of_the_loops(x64):
    matrix = augmentation.rotation(*each([0.3, -2.0, 1.0])) @ augmentation.scaling(
        *each([0.8, 1.3, 1.0], [1.1, 1.3, 0.7])
    )
    matrix = matrix @ augmentation.translation(*each([2.0, -1.5, 0.0], [0.5, 3.0, 9.0]))
    found = jax.jit(augmentation.resample)(jnp.asarray(IMAGES), matrix)
    for i in range(3):
        np.testing.assert_allclose(found[i, :, :, 1], by_hand(IMAGES[i, :, :, 1], np.asarray(matrix[i])), atol=1e-10)


def spot(x=0.0, y=0.0, std_x=2.5, std_y=2.5, side=48):
    """A normal spot at (x, y) pixels from the centre, y downwards."""
    at = np.arange(side) + 0.5 - side / 2
    return np.exp(-0.5 * ((at[None] - x) / std_x) ** 2 - 0.5 * ((at[:, None] - y) / std_y) ** 2)


MAPS = {
    "scaling": (lambda: augmentation.scaling(*each([1.5], [1.5])), spot(4, 2), spot(6, 3, 3.75, 3.75)),
    "one axis": (lambda: augmentation.scaling(*each([1.5], [1 / 1.5])), spot(4, 3), spot(6, 2, 3.75, 2.5 / 1.5)),
    "rotation": (lambda: augmentation.rotation(*each([np.pi / 2])), spot(4, 2, 3, 2), np.rot90(spot(4, 2, 3, 2))),
    "translation": (lambda: augmentation.translation(*each([3.0], [-1.5])), spot(1, 2), spot(4, 0.5)),
    "order": (
        lambda: augmentation.rotation(*each([np.pi / 2])) @ augmentation.translation(*each([3.0], [0.0])),
        spot(4, 2, 3, 2),
        np.roll(np.rot90(spot(4, 2, 3, 2)), 3, axis=1),
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_each_map_does_what_its_name_says(name, x64):
    make, image, expected = MAPS[name]
    found = augmentation.resample(jnp.asarray(image)[None, :, :, None], make())[0, :, :, 0]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_images_are_mirrored_beyond_their_sides(x64):
    image = np.tile(np.arange(8.0)[None], (8, 1))
    found = augmentation.resample(jnp.asarray(image)[None, :, :, None], augmentation.translation(*each([3.0], [0.0])))
    np.testing.assert_allclose(found[0, 4, :, 0], [3, 2, 1, 0, 1, 2, 3, 4], atol=1e-9)


def test_wrong_shapes_and_integers_are_refused():
    for images, matrix in (
        (jnp.ones((2, 8, 8)), jnp.ones((2, 3, 3))),
        (jnp.ones((2, 8, 8, 1), jnp.uint8), jnp.ones((2, 3, 3))),
    ):
        with pytest.raises(AssertionError):
            augmentation.resample(images, matrix)
