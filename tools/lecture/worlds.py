"""Worlds of the lecture: digits, and mixtures of normals, whose density and score are known at every noise."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.data import sources, toy
from gm_jax.models.decoder_likelihoods import DecoderLikelihood, bernoulli
from gm_jax.ops import binarization, predictions
from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import Prediction, per_example
from gm_jax.samplers.ode import PredictFn
from gm_jax.types import Array


@functools.cache
def digits(split: str = "train") -> dict[str, np.ndarray]:
    """Loads the 8x8 digits: "x" [N, 8, 8, 1] levels 0 ... 16, "label" [N]."""
    return dict(sources.load("digits").splits[split])


@functools.cache
def points(name: str, count: int = 20_000) -> np.ndarray:
    """Draws points [count, 2] of a toy density."""
    return toy.toy_splits(name)["train"]["x"][:count]


def black_and_white() -> DecoderLikelihood:
    """Returns the Bernoulli decoder of digits in black and white."""
    return bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17)


class Mixture(NamedTuple):
    """Normals of one standard deviation around some means.

    Attributes:
        means: [K, D].
        weights: [K], which sum to 1.
        std: the standard deviation.
    """

    means: Any
    weights: Any
    std: float

    def log_prob(self, x: Array, a: Array | float = 1.0, s: Array | float = 0.0) -> Array:
        """Computes the log-density [B] of a x_0 + s eps at x [B, D], for scalars a and s or [B]."""
        means, weights = jnp.asarray(self.means, x.dtype), jnp.asarray(self.weights, x.dtype)
        a, s = (jnp.broadcast_to(jnp.asarray(factor, x.dtype), x.shape[:1]) for factor in (a, s))
        variance = a**2 * self.std**2 + s**2
        squares = jnp.sum((x[:, None] - a[:, None, None] * means[None]) ** 2, axis=2)
        exponents = -0.5 * squares / variance[:, None] + jnp.log(weights)[None]
        return jax.nn.logsumexp(exponents, axis=1) - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi * variance)

    def score(self, x: Array, a: Array | float = 1.0, s: Array | float = 0.0) -> Array:
        """Computes the gradient [B, D] of `log_prob` in x."""
        return jax.grad(lambda x: jnp.sum(self.log_prob(x, a, s)))(x)

    def predict_fn(self, path: GaussianPath) -> PredictFn:
        """Returns (x_t, t) -> the exact E[x_0 | x_t] and E[eps | x_t], by the score."""

        def predict(x: Array, t: Array) -> Prediction:
            a, s = path.signal(t), path.noise(t)
            return predictions.prediction_from_score(x, self.score(x, a, s), a, s)

        return predict

    def sample(self, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Draws x [count, D] float32 and the component of each, [count]."""
        rng, means = np.random.default_rng(seed), np.asarray(self.means, np.float64)
        component = rng.choice(len(means), size=count, p=np.asarray(self.weights, np.float64))
        x = means[component] + self.std * rng.normal(size=(count, means.shape[1]))
        return x.astype(np.float32), component


def noise_of(path: GaussianPath, t: Array, x: Array) -> tuple[Array, Array]:
    """Returns a_t and s_t of times [B], shaped to multiply x."""
    return per_example(path.signal(t), x), per_example(path.noise(t), x)
