"""Clipped predictions stay pairs, and examples one by one are examples alone."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import path_sampling
from gm_jax.ops import predictions
from tests.gaussian_mixture import PATHS, Mixture

MIXTURE = Mixture([[-1.0], [0.6]], [0.4, 0.6], 0.3)


def test_a_clipped_prediction_is_in_range_and_still_makes_up_x_t(x64):
    path, x, t = PATHS["vp"], jnp.array([[-3.0], [0.1], [2.0]]), jnp.full(3, 0.3)
    predict_fn = MIXTURE.predict_fn(path)
    pair = path_sampling.clipped(predict_fn, path, (-0.5, 0.5))(x, t)
    np.testing.assert_allclose(pair.x_0, jnp.clip(predict_fn(x, t).x_0, -0.5, 0.5), rtol=1e-12)
    np.testing.assert_allclose(predictions.diffuse(*pair, path.signal(t), path.noise(t)), x, rtol=1e-10)
    assert path_sampling.clipped(predict_fn, path, None) is predict_fn


def test_one_by_one_each_example_is_a_batch_of_one():
    path, key = PATHS["vp"], jax.random.key(0)

    def draw(key, predict_fn, path, x):
        # Couples the examples of a batch.
        return x - jnp.mean(x) + predict_fn(x, jnp.zeros(x.shape[0])).x_0

    def make_predict_fn(label):
        shift = jnp.zeros(1) if label is None else label
        return lambda x, t: predictions.Prediction(shift[:, None] * jnp.ones_like(x), x)

    x, label = jnp.arange(6.0).reshape(3, 2), jnp.array([0.0, 10.0, 20.0])
    sampler = path_sampling.PathSampler(draw, one_by_one=True)
    alone = path_sampling.draw_on_path(sampler, make_predict_fn, path, key, x, label)
    np.testing.assert_allclose(alone, jnp.array([[-0.5, 0.5]]) + label[:, None])
    without = path_sampling.draw_on_path(sampler, make_predict_fn, path, key, x, None)
    np.testing.assert_allclose(without, jnp.tile(jnp.array([[-0.5, 0.5]]), (3, 1)))
    together = path_sampling.draw_on_path(sampler._replace(one_by_one=False), make_predict_fn, path, key, x, label)
    np.testing.assert_allclose(together, x - 2.5 + label[:, None])
