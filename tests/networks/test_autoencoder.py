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


def of_networks(remat):
    """Returns both networks as one function (parameters, x) -> a loss, and their parameters' shapes."""
    settings = {**SETTINGS, "remat": remat, "blocks": 3}
    encoder, decoder = SpatialEncoder((4, 8), 4, **settings), SpatialDecoder((4, 8), (8, 12, 3), 4, **settings)

    def loss(variables, x):
        mean, log_var = encoder.apply(variables[0], x)
        return jnp.mean(jnp.square(decoder.apply(variables[1], mean) - x)) + jnp.mean(jnp.square(log_var))

    return loss, (encoder, X), (decoder, jnp.zeros((2, 96)))


def test_recomputed_blocks_have_the_same_parameters_losses_and_gradients(randomized):
    (plain, *networks), (recomputed, *others) = of_networks(False), of_networks(True)
    variables = [randomized(module, x) for module, x in networks]
    for (module, x), mine in zip(others, variables, strict=True):
        assert jax.tree.map(jnp.shape, jax.eval_shape(module.init, jax.random.key(0), x)) == jax.tree.map(
            jnp.shape, mine
        )
    found, expected = (jax.jit(jax.value_and_grad(loss))(variables, X) for loss in (recomputed, plain))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5 * scale), found, expected)


def test_recomputed_blocks_store_less_for_the_backward_pass():
    def stored(remat):
        loss, *networks = of_networks(remat)
        variables = [jax.eval_shape(module.init, jax.random.key(0), x) for module, x in networks]
        residuals = jax.eval_shape(lambda variables: jax.vjp(lambda v: loss(v, X), variables)[1], variables)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals) if leaf.shape[:1] == (2,))

    assert stored(True) < 0.5 * stored(False)


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
