"""Augmented images are what their numbers say, drawn as often as the setting says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import augmentation
from gm_jax.ops import augmentation as maps

IMAGES = np.random.default_rng(0).normal(size=(300, 8, 6, 2)).astype(np.float32)


def rebuilt(image, told, sign):
    """An image from the numbers that describe it; those of a stretch are the same for the inverse one at b + pi."""
    mirror, flip, scale, cos, sin, x, y, right, down = (float(number) for number in told)
    image = image[:, ::-1] if mirror else image
    image = image[::-1] if flip else image

    def turn(angle):
        return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])

    z, b = sign * np.hypot(x, y), np.arctan2(sign * y, sign * x)
    matrix = np.diag([2 ** (-0.2 * scale), 2 ** (-0.2 * scale), 1.0]) @ turn(np.arctan2(sin, cos + 1))
    matrix = matrix @ turn(-b) @ np.diag([2 ** (-0.2 * z), 2 ** (0.2 * z), 1.0]) @ turn(b)
    matrix = matrix @ np.array([[1, 0, -right * 6 / 8], [0, 1, -down], [0, 0, 1.0]])
    return maps.resample(jnp.asarray(image)[None], jnp.asarray(matrix, jnp.float32)[None])[0]


def test_an_image_is_what_its_numbers_say():
    images, told = jax.jit(lambda x: augmentation.augment(jax.random.key(0), x, probability=0.5))(IMAGES)
    assert told.shape == (300, 9)
    for i in range(25):
        errors = [np.abs(rebuilt(IMAGES[i], told[i], sign) - images[i]).max() for sign in (1.0, -1.0)]
        assert min(errors) < 1e-3, (i, told[i], errors)


def test_an_image_of_which_nothing_is_told_is_as_it_was():
    images, told = augmentation.augment(jax.random.key(1), jnp.asarray(IMAGES), probability=0.2)
    still = np.asarray((told[:, 1:] == 0).all(axis=1))
    mirrored = np.asarray(told[:, 0] == 1)
    assert (still & mirrored).sum() > 10 < (still & ~mirrored).sum()
    np.testing.assert_array_equal(images[still & ~mirrored], IMAGES[still & ~mirrored])
    np.testing.assert_array_equal(images[still & mirrored], IMAGES[still & mirrored][:, :, ::-1])


def test_changes_are_drawn_as_often_as_their_probability():
    count, p = 20_000, 0.12
    _, told = augmentation.augment(jax.random.key(2), jnp.zeros((count, 4, 4, 1)), probability=p)
    told = np.asarray(told, np.float64)
    for columns, share in (([0], 0.5), ([1], p / 2), ([2], p), ([3, 4], p), ([5, 6], p), ([7, 8], p)):
        found = (told[:, columns] != 0).any(axis=1).mean()
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / count), columns
    for z in (told[:, 2], told[:, 7], told[:, 8], np.hypot(told[:, 5], told[:, 6])):
        z = z[z != 0]
        assert abs(np.mean(z**2) - 1.0) < 4 * np.sqrt(2 / len(z))
    # Angles are uniform; half of the stretches are along x.
    turned = told[(told[:, 3:5] != 0).any(axis=1)][:, 3:5] + [1, 0]
    np.testing.assert_allclose(np.hypot(*turned.T), 1.0, rtol=1e-5)
    assert np.abs(turned.mean(axis=0)).max() < 4 * np.sqrt(0.5 / len(turned))
    stretched = told[(told[:, 5:7] != 0).any(axis=1)]
    along_x = (stretched[:, 6] == 0).mean()
    assert abs(along_x - 0.5) < 4 * 0.5 / np.sqrt(len(stretched))
    # The changes are independent: two of them meet with probability p^2.
    both = ((told[:, 2] != 0) & (told[:, 7] != 0)).mean()
    assert abs(both - p**2) < 4 * p / np.sqrt(count)
    # So are their sizes: the squares of two normal numbers have the mean product 1; of one number it is 3.
    squares = [told[:, 2] ** 2, told[:, 5] ** 2 + told[:, 6] ** 2, told[:, 7] ** 2, told[:, 8] ** 2]
    for one, other in itertools.combinations(squares, 2):
        both = (one > 0) & (other > 0)
        assert abs(np.mean((one * other)[both]) - 1.0) < 4 * np.sqrt(8 / both.sum())
