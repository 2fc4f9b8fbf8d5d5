import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops.resize import bilinear_tf1

RNG = np.random.default_rng(0)


def by_definition(x, height, width):
    """Eq. (1) one value after the other, in float64."""
    batch, h, w, channels = x.shape
    out = np.zeros((batch, height, width, channels))
    for row in range(height):
        for column in range(width):
            y, t = divmod(np.float32(row) * np.float32(h / height), 1)
            u, s = divmod(np.float32(column) * np.float32(w / width), 1)
            y, u = int(y), int(u)
            below, right = min(y + 1, h - 1), min(u + 1, w - 1)
            top = x[:, y, u] + (x[:, y, right] - x[:, y, u]) * s
            bottom = x[:, below, u] + (x[:, below, right] - x[:, below, u]) * s
            out[:, row, column] = top + (bottom - top) * t
    return out


@pytest.mark.parametrize(("height", "width"), [(9, 4), (3, 12), (6, 7)])
def test_the_resize_equals_its_definition_value_by_value(height, width):
    x = RNG.normal(size=(2, 6, 7, 3)).astype(np.float32)
    resized = bilinear_tf1(jnp.asarray(x), height=height, width=width)
    np.testing.assert_allclose(resized, by_definition(x, height, width), atol=1e-6)


def test_resizing_to_the_same_size_is_the_identity():
    x = jnp.asarray(RNG.normal(size=(1, 5, 4, 2)), jnp.float32)
    np.testing.assert_array_equal(bilinear_tf1(x, height=5, width=4), x)


def test_corners_are_aligned_instead_of_centres():
    # Doubled, every second value is one of the image's, the first at the first, and the last is repeated.
    x = jnp.asarray([0.0, 10.0, 20.0])[None, None, :, None]
    doubled = bilinear_tf1(x, height=1, width=6)[0, 0, :, 0]
    np.testing.assert_allclose(doubled, [0, 5, 10, 15, 20, 20])


def test_jit_and_vmap_agree():
    x = jnp.asarray(RNG.normal(size=(3, 5, 4, 2)), jnp.float32)
    resize = lambda x: bilinear_tf1(x, height=7, width=3)  # noqa: E731
    np.testing.assert_allclose(jax.jit(resize)(x), resize(x), atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda one: resize(one[None])[0])(x), resize(x), atol=1e-6)


def test_a_wrong_rank_or_dtype_is_refused():
    with pytest.raises(AssertionError):
        bilinear_tf1(jnp.zeros((5, 4, 3)), height=3, width=3)
    with pytest.raises(AssertionError):
        bilinear_tf1(jnp.zeros((1, 5, 4, 3), jnp.uint8), height=3, width=3)
