import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import time_embedding


def test_sinusoids_equal_the_formula_by_hand():
    t = jnp.asarray([0, 1, 1000])
    frequencies = [1.0, 10_000.0**-0.25, 10_000.0**-0.5, 10_000.0**-0.75]
    angles = np.outer([0.0, 1.0, 1000.0], frequencies)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(time_embedding.sinusoids(t, 8), expected, atol=2e-4)
    np.testing.assert_array_equal(time_embedding.sinusoids(t.astype(jnp.float32), 8), time_embedding.sinusoids(t, 8))


def test_odd_dimensions_raise():
    with pytest.raises(ValueError, match="even"):
        time_embedding.sinusoids(jnp.ones(1), 7)


def test_different_times_and_labels_have_different_embeddings(randomized):
    t, label = jnp.asarray([1, 1, 2, 1]), jnp.asarray([0, 1, 0, 0])
    module = time_embedding.TimeEmbedding(8, 16, num_classes=2)
    embedding = module.apply(randomized(module, t, label), t, label)
    assert embedding.shape == (4, 16)
    np.testing.assert_allclose(embedding[3], embedding[0], atol=1e-6)
    for i in (1, 2):
        assert np.abs(embedding[i] - embedding[0]).max() > 1e-2


def test_unexpected_labels_raise():
    module = time_embedding.TimeEmbedding(8, 16)
    with pytest.raises(ValueError, match="num_classes"):
        module.init(jax.random.key(0), jnp.ones(1), jnp.zeros(1, jnp.int32))


def test_what_was_augmented_is_added_to_the_waves(x64):
    module = time_embedding.TimeEmbedding(8, 16, augmented=3)
    t, told = jnp.array([0.3, 70.0]), jnp.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
    params = module.init(jax.random.key(0), t)
    assert params["params"]["augmentation"]["kernel"].shape == (3, 8)
    found = module.apply(params, t, None, told)
    np.testing.assert_array_equal(found[0], module.apply(params, t)[0])
    bare = {"params": {name: value for name, value in params["params"].items() if name != "augmentation"}}
    np.testing.assert_array_equal(module.apply(params, t), time_embedding.TimeEmbedding(8, 16).apply(bare, t))
    first, second = bare["params"]["Dense_0"], bare["params"]["Dense_1"]
    waves = time_embedding.sinusoids(t, 8) + told @ params["params"]["augmentation"]["kernel"]
    expected = jax.nn.silu(waves @ first["kernel"] + first["bias"][None]) @ second["kernel"] + second["bias"][None]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
