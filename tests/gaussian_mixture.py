"""A mixture of normals, whose marginals, scores and flows are known on every Gaussian path."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, stats

from gm_jax.ops import gaussian_path
from gm_jax.ops.predictions import Prediction, per_example

# Ranges with signal and noise at both ends.
PATHS = {
    "vp": gaussian_path.variance_preserving(),
    "sub_vp": gaussian_path.sub_variance_preserving(),
    "ve": gaussian_path.variance_exploding(),
    "edm": gaussian_path.edm(),
    "linear": gaussian_path.linear()._replace(range=(1e-3, 1 - 1e-3)),
}


class Mixture:
    """Normals of one standard deviation around some means [K, D]."""

    def __init__(self, means, weights, std):
        self.means, self.weights, self.std = np.asarray(means, float), np.asarray(weights, float), std

    def log_prob(self, x, a=1.0, s=0.0):
        """Log-density [B] of a x_0 + s eps at x [B, D]."""
        variance = a**2 * self.std**2 + s**2
        squares = jnp.sum((x[:, None] - a * self.means[None]) ** 2, axis=2)
        exponents = -0.5 * squares / variance + np.log(self.weights)[None]
        return jax.nn.logsumexp(exponents, axis=1) - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi * variance)

    def predict_fn(self, path):
        """(x_t, t) -> the exact E[x_0 | x_t] and E[eps | x_t]."""

        def predict(x, t):
            a, s = (per_example(factor(t), x) for factor in (path.signal, path.noise))
            variance = a**2 * self.std**2 + s**2  # [B, 1]
            rest = x[:, None] - a[:, None] * self.means[None]  # [B, K, D]
            exponents = -0.5 * jnp.sum(rest**2, axis=2) / variance + np.log(self.weights)[None]
            share = jax.nn.softmax(exponents, axis=1)[..., None]
            mean_rest = jnp.sum(share * rest, axis=1)
            centre = jnp.sum(share * self.means[None], axis=1)
            return Prediction(centre + a * self.std**2 / variance * mean_rest, s / variance * mean_rest)

        return predict

    def carry(self, path, x, start, end):
        """Where the flow of a one-dimensional mixture carries x [B]: it keeps the distribution function."""

        def cdf(x, t):
            a, s = float(path.signal(jnp.asarray(t))), float(path.noise(jnp.asarray(t)))
            z = (x - a * self.means[:, 0]) / np.sqrt(a**2 * self.std**2 + s**2)
            # The smaller tail, so that both keep their digits.
            return np.sum(self.weights * stats.norm.cdf(z)), np.sum(self.weights * stats.norm.sf(z))

        a, s = float(path.signal(jnp.asarray(end))), float(path.noise(jnp.asarray(end)))
        width = 12 * np.sqrt(a**2 * self.std**2 + s**2)
        bracket = a * np.min(self.means) - width, a * np.max(self.means) + width

        def move(x):
            below, above = cdf(x, start)
            if below < above:
                gap = lambda y: np.log(cdf(y, end)[0]) - np.log(below)  # noqa: E731
            else:
                gap = lambda y: np.log(above) - np.log(cdf(y, end)[1])  # noqa: E731
            return optimize.brentq(gap, *bracket, xtol=1e-14, rtol=1e-14)

        return np.array([move(value) for value in np.asarray(x)])


def log_snr(path, t):
    t = jnp.asarray(t)
    return 2 * (np.log(np.asarray(path.signal(t))) - np.log(np.asarray(path.noise(t))))
