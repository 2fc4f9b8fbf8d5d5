"""Mistakes that were published in the code of score-based models: each oracle tells the mistaken form from ours.

Each test states where the mistake was found, and computes the mistaken form itself. Those of energy-based models are in
`tests/samplers/test_published_mistakes.py`.
"""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from gm_jax.data import sources
from gm_jax.losses import diffusion
from gm_jax.models import flow, path_objectives, path_sampling, score
from gm_jax.ops import divergence, gaussian_path, predictions
from gm_jax.samplers import sde, time_grids
from tests.gaussian_mixture import PATHS, Mixture

C = 0.5


class Exact(nn.Module):
    """E[x_0 | x_t] of a mixture, from what a score model shows its network."""

    mixture: Mixture
    on: gaussian_path.GaussianPath

    def __call__(self, x, level, label=None, *, train=False):
        t = self.on.time_at_log_snr(-2.0 * level / 25.0)
        a, s = self.on.signal(t), self.on.noise(t)
        x_t = x * jnp.sqrt((a * C) ** 2 + s**2)[:, None]
        return self.mixture.predict_fn(self.on)(x_t, t).x_0


def exact_model(mixture, path, *, levels=None, **settings):
    """The score model of a mixture, all of whose numbers are therefore known."""
    return score.ScoreModel(
        network=Exact(mixture, path),
        space=flow.no_dequantization() if levels is None else flow.symmetric_dequantization(levels=levels),
        path=path,
        shape=mixture.means.shape[1:],
        parameterization=path_objectives.data_prediction(),
        times_fn=path_objectives.log_snr_times,
        sampler=path_sampling.PathSampler(lambda key, predict_fn, path, x_T: x_T),
        sigma_data=C,
        **{"likelihood": score.ODELikelihood(), **settings},
    )


PARAMS = {"score": {}}


def test_levels_without_dequantisation_have_negative_bits():
    # score_sde, issue 24: the density of the levels themselves, which a model can raise without limit.
    centres = np.array([[-0.5], [0.5]])
    model = exact_model(Mixture(centres, [0.5, 0.5], 0.05), PATHS["edm"], levels=2)
    ours = jax.jit(model.log_prob)(PARAMS, {}, jax.random.key(0), jnp.arange(60, dtype=jnp.uint8)[:, None] % 2)
    assert ours.kind == "lower_bound"
    bits = -np.asarray(ours.log_prob, np.float64) / np.log(2)
    assert bits.mean() > 1.0 + 3 * bits.std() / np.sqrt(len(bits))  # the entropy of the levels is 1 bit
    mistaken = -jax.jit(model.log_density)(PARAMS, {}, jnp.asarray(centres, jnp.float32)) / np.log(2)  # cells of size 1
    np.testing.assert_allclose(mistaken, np.log2(2 * np.sqrt(2 * np.pi) * np.hypot(0.05, 0.002)), atol=0.02)
    assert float(jnp.max(mistaken)) < -1.5


def test_an_offset_of_seven_bits_is_that_of_256_levels_alone():
    # score_sde_pytorch, issue 51: bits/dim + 7, the logarithm of 256 / 2, whatever the levels.
    mixture, levels, count = Mixture([[-0.3], [0.2]], [0.4, 0.6], 0.15), 17, 200
    model = exact_model(mixture, PATHS["edm"], levels=levels, likelihood=score.ODELikelihood(1e-3))
    x = jnp.tile(jnp.arange(levels, dtype=jnp.uint8)[:, None], (count, 1))
    key = jax.random.key(1)
    ours = jax.jit(model.log_prob)(PARAMS, {}, key, x).log_prob

    def total(log_prob):  # over the levels, and the error of its mean over the noise
        p = np.exp(np.asarray(log_prob, np.float64)).reshape(count, levels)
        return p.mean(axis=0).sum(), np.sqrt((p.var(axis=0) / count).sum())

    found, error = total(ours)
    assert abs(found - 1.0) < 4 * error
    assert error < 0.01
    mistaken = ours - np.log(2 / levels) - 7 * np.log(2)
    np.testing.assert_allclose(total(mistaken)[0], found * levels / 256, rtol=1e-4)


def test_a_bound_without_the_entropy_of_the_first_noise_is_above_the_likelihood():
    # Soft-Truncation, issues 2 and 3: log p(x_e) + log p(x_0 | x_e) without -log q(x_e | x_0).
    datum = np.array([0.4, -0.3])
    model = exact_model(Mixture([[0.0, 0.0]], [1.0], C), PATHS["edm"], num_bound_times=200)
    x_0 = jnp.tile(jnp.asarray(datum, jnp.float32)[None], (200, 1))
    exact = stats.norm.logpdf(datum, scale=C).sum()
    bound = jax.jit(model.bound)(PARAMS, {}, jax.random.key(0), x_0).log_prob
    assert abs(float(jnp.mean(bound)) - exact) < 4 * float(jnp.std(bound)) / np.sqrt(200) + 5e-3

    first = jnp.full(200, model.path.range[0])
    s = float(model.path.noise(first[0]))
    eps = jax.random.normal(jax.random.key(1), x_0.shape)
    x_e = x_0 + s * eps
    x0_hat = model.predict_fn(PARAMS, {}, None)(x_e, first).x_0
    decoder_nll = diffusion.decoder_normal_nll(x_0, x0_hat, log_var=jnp.asarray(2 * np.log(s)))
    mistaken = jax.jit(model.log_density)(PARAMS, {}, x_e) - decoder_nll
    assert float(jnp.mean(mistaken)) > exact + 5.0
    log_q = -0.5 * jnp.sum(jnp.square(eps), axis=1) - np.log(2 * np.pi * s**2)
    np.testing.assert_allclose(float(jnp.mean(mistaken - log_q)), exact, atol=5e-3)


def test_a_schedule_whose_ends_move_has_the_range_of_its_own_ends():
    # vdm, issue 11: a learned schedule leaves the two log snr between which the bound is declared to lie.
    datum, declared = 0.4, (9.0, -9.0)

    def scheduled(warp):
        """Log snr falls from the first declared end as `warp` rises from 0 to 1."""
        log_sigma = lambda t: -0.5 * (declared[0] + (declared[1] - declared[0]) * warp(t))  # noqa: E731
        return gaussian_path.GaussianPath(jnp.ones_like, lambda t: jnp.exp(log_sigma(t)), (0.0, 1.0))

    x_0 = jnp.full((4_000, 1), datum)
    exact = stats.norm.logpdf(datum, scale=C)
    kept, moved = scheduled(lambda t: (t + t**2) / 2), scheduled(lambda t: 0.2 + 0.6 * t)
    for path, is_declared in ((kept, True), (moved, False)):
        model = exact_model(Mixture([[0.0]], [1.0], C), path, num_bound_times=200)
        ours = jax.jit(model.bound)(PARAMS, {}, jax.random.key(0), x_0).log_prob
        error = float(jnp.std(ours)) / np.sqrt(len(x_0))
        # What the standard normal prior costs, at the last time of the path.
        snr = float((path.signal(jnp.ones(())) / path.noise(jnp.ones(()))) ** 2)
        total = 1 + snr * C**2
        gap = 0.5 * (snr * datum**2 * (1 - 1 / total) + 1 - 1 / total - np.log(total))
        assert abs(float(jnp.mean(ours)) - (exact - gap)) < 4 * error + 2e-3
        assert error < 0.02
        t = time_grids.uniform_log_snr(path, 1001)
        r2 = np.exp(np.asarray(predictions.log_snr(path.signal(t), path.noise(t)), np.float64))
        losses = (r2**2 * C**4 + r2 * datum**2) / (1 + r2 * C**2) ** 2
        own = -np.log(r2[0] / r2[-1])
        mistaken = np.mean(ours) + 0.5 * (own - (declared[0] - declared[1])) * losses.mean()
        assert (abs(mistaken - (exact - gap)) < 4 * error + 5e-3) == is_declared, (mistaken, exact - gap)


def test_a_divergence_over_the_first_axis_of_an_event_is_that_of_flat_data_alone(x64):
    # facebookresearch/flow_matching: the sum over i of d u[:, i] / d x[:, i], where i runs over one axis.
    matrix = np.random.default_rng(0).normal(size=(6, 6))

    def field(x):
        flat = x.reshape(x.shape[0], 6)
        return (flat @ matrix.T + flat**3).reshape(x.shape)

    def mistaken(x):
        return sum(jax.grad(lambda x, i=i: field(x)[:, i].sum())(x)[:, i] for i in range(x.shape[1]))

    flat = jnp.asarray(np.random.default_rng(1).normal(size=(5, 6)))
    expected = np.trace(matrix) + 3 * np.sum(np.square(flat), axis=1)
    for x in (flat, flat.reshape(5, 3, 2)):
        np.testing.assert_allclose(divergence.exact_divergence(field, x)[1], expected, rtol=1e-12)
    np.testing.assert_allclose(mistaken(flat), expected, rtol=1e-12)
    assert mistaken(flat.reshape(5, 3, 2)).shape == (5, 2)  # two numbers an example, and neither their sum is right
    assert np.abs(mistaken(flat.reshape(5, 3, 2)).sum(axis=1) - expected).max() > 0.1


def test_the_density_of_flow_matching_is_not_that_of_the_noise_at_its_end():
    # torchcfm, issue 88: users ask for the density of a trained flow, and the library has none.
    mixture = Mixture([[-1.0, 0.3], [0.6, -0.5]], [0.4, 0.6], 0.4)
    model = exact_model(mixture, PATHS["linear"])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
    log_prob = model.model.log_prob
    assert log_prob is not None
    expected = mixture.log_prob(x, *(factor(jnp.asarray(1e-3)) for factor in (model.path.signal, model.path.noise)))
    np.testing.assert_allclose(jax.jit(log_prob)(PARAMS, {}, jax.random.key(0), x).log_prob, expected, atol=3e-3)
    # A probe of zeros leaves out the divergence.
    mistaken = jax.jit(model.log_densities)(PARAMS, {}, x, jnp.zeros((1, *x.shape)))[0]
    assert float(jnp.abs(mistaken - expected).min()) > 0.2


def test_two_versions_of_downsampled_images_are_two_data_sets():
    # DenseFlow, issue 7: figures of the two ImageNet32, averaged and subsampled, stand in one table.
    large = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1))
    averaged = np.round(large.reshape(40, 8, 2, 8, 2, 1).mean(axis=(2, 4))).astype(np.uint8)
    subsampled = large[:, ::2, ::2].astype(np.uint8)
    assert (averaged.shape, averaged.dtype) == (subsampled.shape, subsampled.dtype)
    one, other, again = (
        sources.fingerprint({name: {"x": x} for name in ("train", "validation", "test")})
        for x in (averaged, subsampled, averaged.copy())
    )
    assert one == again
    assert one != other


def test_half_of_the_change_of_sigma_is_no_drift_of_the_exploding_sde():
    # artifex: -1/2 dsigma score and noise of variance 2 sigma dt, for -2 sigma dsigma score and 2 sigma dsigma.
    path, count = gaussian_path.variance_exploding(), 2_000
    times, normal = time_grids.uniform(path, 1001), Mixture([[0.0]], [1.0], 1.0)
    start = float(path.noise(times[0])) * jax.random.normal(jax.random.key(1), (count, 1))
    run = jax.jit(lambda key, x: sde.euler_maruyama(key, normal.predict_fn(path), path, x, times))
    ours = float(jnp.std(run(jax.random.key(0, impl="rbg"), start)))
    assert abs(ours - 1.0) < 4 / np.sqrt(2 * count) + 0.01
    # The score is -x / (1 + sigma^2), so that a step multiplies the variance and adds to it.
    sigma = np.asarray(path.noise(times), np.float64)
    variance = sigma[0] ** 2
    for now, then in itertools.pairwise(sigma):
        variance = variance * (1 + 0.5 * (then - now) / (1 + now**2)) ** 2 + 2 * now / 1000
    np.testing.assert_allclose(np.sqrt(variance), 23.2, atol=0.2)
