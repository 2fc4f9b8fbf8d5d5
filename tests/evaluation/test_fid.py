"""The FID against the Frechet distance of the same features, and its refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.evaluation import features, fid, frechet

RNG = np.random.default_rng(0)


def extractor(name="inception"):
    """Returns an extractor of the four quadrant means, in place of Inception."""

    def apply(params, images):
        means = images.astype(jnp.float32).reshape(len(images), 2, 2, 2, 2).mean(axis=(2, 4)).reshape(-1, 4)
        return features.Features(means, means)

    return features.Extractor(name, "0" * 64, "none", None, (1,), 4, {}, apply)


def images(num, high):
    return RNG.integers(0, high, (num, 4, 4, 1)).astype(np.uint8)


def test_the_fid_is_the_frechet_distance_of_the_features():
    real, generated = images(30, 256), images(23, 128)
    moments = [
        frechet.add_batch(frechet.no_moments(4), extractor().apply({}, jnp.asarray(x)).features)
        for x in (real, generated)
    ]
    found = fid.frechet_inception_distance(extractor(), real, generated, batch_size=10)
    np.testing.assert_allclose(found, frechet.frechet_distance(*moments), rtol=1e-6)
    assert found > 1000.0


def test_the_fid_of_a_set_with_itself_is_zero():
    same = images(30, 256)
    assert fid.frechet_inception_distance(extractor(), same, same) < 1e-6


def test_other_features_are_not_called_fid():
    with pytest.raises(UserError, match="needs the extractor inception, got digits-cnn"):
        fid.frechet_inception_distance(extractor("digits-cnn"), images(5, 256), images(5, 256))
