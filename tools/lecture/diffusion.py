"""Diffusion: the chains, the bound along t, guidance, and the flow that leads to the same samples."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from gm_jax.data import toy
from gm_jax.losses import diffusion as losses
from gm_jax.models import diffusion, diffusion_space
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process, gaussian_path, predictions
from gm_jax.ops.predictions import Prediction
from gm_jax.plotting import images
from gm_jax.plotting.diffusion import diffuse_along
from gm_jax.samplers import ddpm, guidance, ode, time_grids
from gm_jax.types import Array, Params
from tools.lecture import training, worlds
from tools.lecture.page import Number, Page

_T, _MOONS = 50, "toy:two_moons"


def chains() -> Page:
    """The forward and the reverse chain."""
    family, params = _ddpm()
    times = np.array([0, 2, 5, 12, 25, _T])
    x = jnp.asarray(worlds.points(_MOONS)[:1_500])
    forward = np.asarray(diffuse_along(family, jax.random.key(0), x, jnp.asarray(times)))
    chain = jax.jit(lambda key: family.trajectory(params, {}, key, 1_500))(jax.random.key(1))
    states = np.concatenate([np.asarray(chain.x_t), np.asarray(chain.x_0)[None]])  # t = T ... 0
    cost = -float(np.mean(toy.toy_log_density(_MOONS)(states[-1].astype(np.float64))))

    def draw(path: Path) -> None:
        figure = Figure(figsize=(11, 4.3), layout="constrained")
        panels = figure.subplots(2, len(times), sharex=True, sharey=True)
        for column, t in enumerate(times):
            panels[0, column].scatter(*forward[:, column].T, s=1.5, color="tab:blue")
            panels[0, column].set(title=f"q: t = {t}", aspect="equal", xlim=(-4, 4), ylim=(-3.5, 3.5))
            reverse = times[::-1][column]
            panels[1, column].scatter(*states[_T - reverse].T, s=1.5, color="tab:red")
            panels[1, column].set(title=f"p: t = {reverse}", aspect="equal")
        images.save_figure(path, figure, dpi=80)

    return Page(
        """
        forward:   q(x_t | x_(t-1)) = N(sqrt(1 - beta_t) x_(t-1), beta_t I)           no parameters
        reverse:   p(x_(t-1) | x_t) = N(mu_t(x_t, x0_hat(x_t, t)), var_t I),      x_T ~ N(0, I)
        trained by E |eps - eps_hat(x_t, t)|^2 at a random t
        """,
        (
            losses.noise_prediction_loss,
            diffusion_process.transition_mean,
            diffusion_process.posterior_mean,
            ddpm.ancestral,
            diffusion.Diffusion,
        ),
        """
        Above: two moons become noise in 50 steps, from left to right. Nothing is learned here. Below, from left to
        right: the reverse chain begins with new noise and removes a little at each step, by a network that predicts
        the noise. The large shape appears first, the fine one last.

        The last number is the cost of the samples under the true density. It is large if samples lie where data are
        rare, and does not see what the samples leave out.
        """,
        (
            Number("standard deviation of the data", float(np.std(x)), 1.2, 1.8, ".2f"),
            Number("standard deviation at t = 50, forward", float(np.std(forward[:, -1])), 0.95, 1.05, ".2f"),
            Number("entropy of the data, nats", _entropy(), 2.35, 2.45, ".2f"),
            Number("-log p_data of the samples, nats", cost, 2.2, 3.2, ".2f"),
        ),
        draw,
    )


def bound_terms() -> Page:
    """The bound of diffusion, term by term along t."""
    family, params = _ddpm()
    x = jnp.asarray(toy.toy_splits(_MOONS)["test"]["x"][:4_000])
    prior, kls, decoder, simple = (np.asarray(term) for term in jax.jit(functools.partial(_terms, family, params))(x))
    total = float(prior.mean() + kls.mean(axis=1).sum() + decoder.mean())
    found = jax.jit(lambda x: family.log_prob(params, {}, jax.random.key(3), x).log_prob)(x)
    early = float(kls.mean(axis=1)[:9].sum())  # t = 2 ... 10

    def draw(path: Path) -> None:
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.bar(0, decoder.mean(), color="tab:orange", label="L_0")
        left.bar(np.arange(1, _T), kls.mean(axis=1), color="tab:blue", label="L_1 ... L_49")
        left.bar(_T, prior.mean(), color="tab:green", label="L_T")
        left.set(xlabel="t", ylabel="nats, mean over the test points")
        left.legend()
        right.plot(np.arange(2, _T + 1), simple.mean(axis=1), color="tab:red")
        right.set(xlabel="t", ylabel="|eps - eps_hat|^2, unweighted", ylim=(0, 2.1))
        images.save_figure(path, figure)

    return Page(
        """
        -log p(x_0) <= L_T + sum_(t=2..T) L_(t-1) + L_0
        L_T = KL(q(x_T | x_0) || N(0, I)),      L_(t-1) = KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t))
        L_0 = -log p(x_0 | x_1)
        """,
        (
            losses.prior_kl,
            losses.denoising_kl,
            losses.decoder_normal_nll,
            losses.variational_bound,
        ),
        """
        The bars are the terms of the bound of the model of the page before. Most of the nats are spent near the data,
        at small t, where x_t has lost only detail. The prior's term is almost 0: no information is left at t = T. L_0
        is minus a log-density, which may be negative.

        Right: the training's loss, which has no weight. The network fails most at small t, where little noise is hard
        to see.
        """,
        (
            Number("L_T, nats", float(prior.mean()), 0, 0.02, ".4f"),
            Number("sum of L_1 ... L_49, nats", float(kls.mean(axis=1).sum()), 4, 8, ".2f"),
            Number("share of L_1 ... L_9 in it", early / float(kls.mean(axis=1).sum()), 0.5, 1, ".2f"),
            Number("bound on -log p, the sum of the bars, nats", total, 2.4, 3.2, ".2f"),
            Number(
                "the same by Diffusion.log_prob, with other draws, minus the number above",
                -float(jnp.mean(found)) - total,
                -0.1,
                0.1,
                ".3f",
            ),
            Number("entropy of the data, nats", _entropy(), 2.35, 2.45, ".2f"),
        ),
        draw,
    )


_CLASSES = worlds.Mixture([[-1.0, 0.0], [0.6, 0.9], [0.6, -0.9]], [1 / 3] * 3, 0.6)
_WEIGHTS = (-1.0, 0.0, 1.0, 4.0)


def guidance_weight() -> Page:
    """Guidance: the weight of a class."""
    drawn = {weight: _guided(weight) for weight in _WEIGHTS}
    share = {weight: float(np.mean(_posterior(x))) for weight, x in drawn.items()}
    spread = {weight: float(np.sqrt(np.mean(np.var(x, axis=0)))) for weight, x in drawn.items()}

    def draw(path: Path) -> None:
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        for axes, (weight, x) in zip(figure.subplots(1, 4, sharex=True, sharey=True), drawn.items(), strict=True):
            axes.scatter(*x.T, s=2, color="tab:blue")
            axes.plot(*np.asarray(_CLASSES.means).T, "k+", ms=9)
            axes.set(title=f"w = {weight:g}", aspect="equal", xlim=(-3.5, 3), ylim=(-3, 3), xlabel="x[0]")
        figure.axes[0].set_ylabel("x[1]")
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        eps_w(x_t) = (1 + w) eps(x_t, c) - w eps(x_t),       w = -1: no class,   w = 0: p(x | c)
        """,
        (
            guidance.classifier_free_guidance,
            ode.heun,
            predictions.prediction_from_score,
            gaussian_path.variance_preserving,
        ),
        """
        Three classes are normals around the crosses, and overlap. Both predictions are exact here, so that what is
        seen is guidance itself and not the error of a network. The samples are of the left class. With w = 0 they are
        p(x | c). A larger w moves them away from where another class is possible: each sample is surely of its class.
        The price is variety: the samples shrink, and their mean leaves that of the class. Guided samples are not
        samples of p(x | c).
        """,
        (
            Number("mean p(class of the sample), w = -1", share[-1.0], 0.30, 0.37, ".3f"),
            Number("mean p(class of the sample), w = 0", share[0.0], 0.7, 0.9, ".3f"),
            Number("mean p(class of the sample), w = 4", share[4.0], 0.95, 1.0, ".3f"),
            Number("standard deviation, w = 0; the class has 0.6", spread[0.0], 0.57, 0.63, ".2f"),
            Number("standard deviation, w = 4", spread[4.0], 0.2, 0.5, ".2f"),
        ),
        draw,
    )


@functools.cache
def _ddpm() -> tuple[diffusion.Diffusion, Params]:
    """Trains a DDPM of the two moons, once for all pages."""
    schedule = diffusion_process.linear_schedule(_T)
    family = diffusion.Diffusion(
        network=DiffusionMLP(64, 2),
        space=diffusion_space.points(),
        schedule=schedule,
        shape=(2,),
        parameterization=diffusion.noise_prediction(),
        sampler=ddpm.ancestral(schedule, _T, variance_fn=diffusion_process.transition_variance),
        variance_fn=diffusion_process.transition_variance,
    )
    data = {"x": worlds.points(_MOONS, 50_000)}
    return family, training.train(family.model, data, steps=3_000, batch_size=256, learning_rate=2e-3).params


def _entropy() -> float:
    x = toy.toy_splits(_MOONS)["test"]["x"][:4_000]
    return -float(np.mean(toy.toy_log_density(_MOONS)(x.astype(np.float64))))


def _terms(family: diffusion.Diffusion, params: Params, x: Array) -> tuple[Array, Array, Array, Array]:
    """L_T [B], L_1 ... L_(T-1) [T - 1, B], L_0 [B], and the unweighted losses at t = 2 ... T."""
    schedule, predict = family.schedule, family.predict_fn(params, {}, None)

    def at(t: Array) -> tuple[Array, Array, Array]:
        eps = jax.random.normal(jax.random.fold_in(jax.random.key(2), t), x.shape)
        x_t = predictions.diffuse(x, eps, schedule.signal(t), schedule.noise(t))
        found = predict(x_t, jnp.full(len(x), t))
        log_var = jnp.log(family.variance_fn(schedule.at(t - 1), schedule.at(t)))
        kl = losses.denoising_kl(x, found.x_0, schedule.at(t - 1), schedule.at(t), log_var=log_var)
        return (
            kl,
            losses.decoder_normal_nll(x, found.x_0, log_var=log_var),
            losses.noise_prediction_loss(eps, found.eps),
        )

    kls, _, simple = jax.lax.map(at, jnp.arange(2, _T + 1))
    return losses.prior_kl(x, schedule.at(_T)), kls, at(jnp.int32(1))[1], simple


def _guided(weight: float) -> np.ndarray:
    """Draws 1,500 samples of the first class, guided with a weight, by the ODE."""
    path = gaussian_path.variance_preserving()
    of_class = worlds.Mixture([_CLASSES.means[0]], [1.0], _CLASSES.std).predict_fn(path)
    of_all = _CLASSES.predict_fn(path)

    def predict(x: Array, t: Array) -> Prediction:
        eps = guidance.classifier_free_guidance(of_class(x, t).eps, of_all(x, t).eps, weight=weight)
        return predictions.prediction_from_eps(x, eps, path.signal(t), path.noise(t))

    times = time_grids.uniform_log_snr(path, 40)

    def run(x: Array) -> Array:
        return ode.denoise(predict, ode.heun(predict, path, x, times), times[-1])

    return np.asarray(jax.jit(run)(jax.random.normal(jax.random.key(0), (1_500, 2))))


def _posterior(x: np.ndarray) -> np.ndarray:
    """p(first class | x)."""
    squares = np.sum((x[:, None] - np.asarray(_CLASSES.means)[None]) ** 2, axis=2)
    share = np.exp(-0.5 * squares / _CLASSES.std**2)
    return share[:, 0] / share.sum(axis=1)
