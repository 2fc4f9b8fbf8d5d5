import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.autoencoder import SpatialCodeEncoder, SpatialDecoder, SpatialEncoder, latent_shape

SETTINGS = {"groups": 2, "attention": True}
X = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))


@pytest.mark.parametrize(("features", "patch"), [((4, 6, 8), 1), ((4, 6), 2)])
def test_images_become_small_images_and_come_back(features, patch):
    settings = {**SETTINGS, "patch": patch}
    encoder, decoder = SpatialEncoder(features, 4, **settings), SpatialDecoder(features, (8, 12, 3), 4, 2, **settings)
    (mean, log_var), _ = encoder.init_with_output(jax.random.key(0), X)
    assert latent_shape((8, 12, 3), levels=len(features), channels=4, patch=patch) == (2, 3, 4)
    assert mean.shape == log_var.shape == (2, 24)
    out, _ = decoder.init_with_output(jax.random.key(0), mean)
    assert out.shape == (2, 8, 12, 6)


def test_a_latent_lies_where_its_pixels_lie(randomized):
    # Without attention and middle blocks' norms a far pixel still counts through group statistics: the nearest latents
    # of a changed pixel change most.
    encoder = SpatialEncoder((4, 8), 2, groups=2)
    variables = randomized(encoder, X)
    moved = X.at[:, 1, 10].add(4.0)
    change = np.abs(encoder.apply(variables, moved)[0] - encoder.apply(variables, X)[0]).reshape(2, 4, 6, 2).sum((0, 3))
    assert np.unravel_index(np.argmax(change), change.shape)[0] < 2
    assert np.unravel_index(np.argmax(change), change.shape)[1] > 3


def test_the_parameters_of_the_published_autoencoder():
    # kl-f8 of the source has 83,653,863; its attention has biases of the keys, 512 numbers in each network.
    features = (128, 256, 512, 512)
    settings = {"blocks": 2, "groups": 32, "attention": True}
    image, latents = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32), jax.ShapeDtypeStruct((1, 4096), jnp.float32)
    encoder, decoder = SpatialEncoder(features, 4, **settings), SpatialDecoder(features, (256, 256, 3), 4, **settings)
    key = jax.random.key(0)
    shapes = jax.eval_shape(encoder.init, key, image), jax.eval_shape(decoder.init, key, latents)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 83_653_863 - 2 * 512


@pytest.mark.parametrize("shape", [(2, 6, 12, 3), (2, 8)])
def test_images_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(UserError):
        SpatialEncoder((4, 6, 8), 4, groups=2).init(jax.random.key(0), jnp.ones(shape))


def test_the_encoder_of_codes_has_one_vector_for_each_place():
    settings = {"groups": 2, "attention": True, "patch": 2}
    z, variables = SpatialCodeEncoder((4, 6), 5, **settings).init_with_output(jax.random.key(0), X)
    assert z.shape == (2, 2 * 3 * 5)
    # Its layers are those of the encoder of moments, but for the number of outputs.
    other = SpatialEncoder((4, 6), 5, **settings).init(jax.random.key(0), X)["params"]
    mine = variables["params"]
    assert set(mine) - {"vectors"} == set(other) - {"moments"}
    for name in set(mine) - {"vectors", "last"}:
        assert jax.tree.map(jnp.shape, mine[name]) == jax.tree.map(jnp.shape, other[name])
