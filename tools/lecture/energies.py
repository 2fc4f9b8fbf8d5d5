"""Energies and scores: Langevin dynamics, the fields of scores, and the probability flow."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from gm_jax.losses import score_matching
from gm_jax.models import flow, path_objectives, score
from gm_jax.models.path_sampling import PathSampler
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import gaussian_path
from gm_jax.plotting import images, vector_fields
from gm_jax.plotting.score import flow_lines, score_field
from gm_jax.samplers import langevin, ode, sde, time_grids
from gm_jax.types import Array, Params
from tools.lecture import training, worlds
from tools.lecture.page import Number, Page

_RING = worlds.Mixture([[1.5, 0.0], [0.0, 1.5], [-1.5, 0.0], [0.0, -1.5]], [0.25] * 4, 0.4)
_FAR = worlds.Mixture([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]], [0.25] * 4, 0.4)


def langevin_chains() -> Page:
    """Langevin dynamics on an energy."""
    counts = (0, 30, 300, 3_000)
    start = jnp.zeros((1_000, 2)).at[:, 0].set(1.5)
    near = [_chain(_RING, start, count) for count in counts]
    far = _chain(_FAR, 2.0 * start, counts[-1])
    visited = {"near": _modes(_RING, near[-1]), "far": _modes(_FAR, far)}
    step = 1.0
    wide = langevin.langevin(
        jax.random.key(1), jnp.zeros((40_000, 1)), lambda x: 0.5 * x[:, 0] ** 2, num_steps=60, step_size=step
    )

    def draw(path: Path) -> None:
        figure = Figure(figsize=(12, 2.9), layout="constrained")
        panels = figure.subplots(1, 5)
        for axes, count, x in zip(panels, counts, near, strict=False):
            _contours(axes, _RING, 2.8)
            axes.scatter(*x.T, s=1.5, color="tab:red")
            axes.set(title=f"{count:,} steps", aspect="equal", xticks=[], yticks=[])
        _contours(panels[4], _FAR, 4.3)
        panels[4].scatter(*far.T, s=1.5, color="tab:red")
        panels[4].set(title=f"far modes, {counts[-1]:,} steps", aspect="equal", xticks=[], yticks=[])
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        p(x) = exp(-E(x)) / Z,        x' = x - e/2 grad E(x) + sqrt(e) z,     z ~ N(0, I)
        for E = x^2 / 2 the chain has the variance 1 / (1 - e/4) instead of 1
        """,
        (langevin.langevin, langevin.gradient_step, langevin.mala),
        """
        All chains begin at one mode. A step goes down the energy and adds noise; Z is never needed. The chains first
        fill their own mode, then cross the low ridges, and after 3,000 steps all four modes have a quarter each. In
        the last panel the modes are twice as far apart. With the same noise the chains would have to climb a much
        higher ridge, and almost none does: they mix within a mode and not between modes. This is why samples of
        energy-based models may look good and be incomplete.

        A finite step has a bias, which a test of acceptance (MALA) removes.
        """,
        (
            Number("share of the rarest mode, near modes", float(visited["near"].min()), 0.15, 0.25, ".2f"),
            Number("share of the first mode, far modes", float(visited["far"][0]), 0.99, 1.0, ".2f"),
            Number("variance with e = 1, measured", float(jnp.var(wide)), 1.29, 1.38, ".3f"),
            Number("variance by the formula", 1 / (1 - step / 4), 1.333, 1.334, ".3f"),
        ),
        draw,
    )


_SIGMAS = (0.1, 0.5, 2.0)


def score_fields() -> Page:
    """Fields of scores at three noises."""
    family, params = _score_model()
    error = {}
    for sigma in _SIGMAS:
        x, _ = _RING.sample(4_000, seed=1)
        x = jnp.asarray(x + sigma * np.random.default_rng(2).normal(size=x.shape), jnp.float32)
        exact, learned = _RING.score(x, 1.0, sigma), score_field(family, params, {}, x, sigma=sigma)
        error[sigma] = float(jnp.sum((exact - learned) ** 2) / jnp.sum(exact**2))

    def draw(path: Path) -> None:
        figure = Figure(figsize=(10, 3.7), layout="constrained")
        for axes, sigma in zip(figure.subplots(1, 3), _SIGMAS, strict=True):
            _contours(axes, _RING, 3.2, sigma)
            points = vector_fields.grid_of([(-3.2, 3.2)] * 2).reshape(24, 24, 2)[1::2, 1::2].reshape(-1, 2)
            longest = 0.0
            for arrows, colour, width in (
                (_RING.score(jnp.asarray(points), 1.0, sigma), "0.65", 0.012),
                (score_field(family, params, {}, jnp.asarray(points), sigma=sigma), "tab:red", 0.005),
            ):
                short = vector_fields.shortened(np.asarray(arrows, np.float64))
                longest = longest or float(np.hypot(*short.T).max())
                axes.quiver(*points.T, *short.T, angles="xy", color=colour, width=width, scale=12 * longest)
            axes.set(title=f"noise {sigma:g}: relative error {error[sigma]:.3f}", aspect="equal", xticks=[], yticks=[])
        images.save_figure(path, figure, dpi=80)

    return Page(
        """
        score(x, s) = grad log p_s(x),     p_s: density of the data plus noise of standard deviation s
        denoising score matching:  E |S(x + s eps, s) + eps / s|^2,       minimised by S = score
        """,
        (score_matching.denoising_score_matching_loss, score.ScoreModel, score_field, vector_fields.draw_flow),
        """
        Grey arrows are the exact scores of four normals, red arrows those of a small network that was trained by
        predicting noise. The lengths are on a logarithmic scale of each panel. With little noise the field points to
        the nearest mode, and the network has seen examples near the modes alone. With more noise the fields of the
        modes join, and with a noise larger than the data there is one centre. A sampler follows the fields from the
        right panel to the left one.

        The errors are under the noisy data: the mean squared difference over the mean square of the exact score.
        """,
        (
            Number("relative squared error, noise 0.1", error[0.1], 0, 0.5, ".3f"),
            Number("relative squared error, noise 0.5", error[0.5], 0, 0.1, ".3f"),
            Number("relative squared error, noise 2", error[2.0], 0, 0.05, ".3f"),
        ),
        draw,
    )


def probability_flow() -> Page:
    """The probability flow, and the SDE with the same samples."""
    family, params = _score_model()
    path = family.path
    x, _ = _RING.sample(2_000, seed=3)
    times = time_grids.uniform_log_snr(path, 100)
    predict = family.predict_fn(params, {}, None)
    start = path.noise(times[0]) * jax.random.normal(jax.random.key(0), (2_000, 2))
    drawn = {
        "ODE": jax.jit(lambda x: ode.denoise(predict, ode.heun(predict, path, x, times), times[-1]))(start),
        "SDE": jax.jit(
            lambda x: ode.denoise(predict, sde.euler_maruyama(jax.random.key(1), predict, path, x, times), times[-1])
        )(start),
    }
    cost = {name: -float(jnp.mean(_RING.log_prob(x))) for name, x in {**drawn, "data": jnp.asarray(x)}.items()}
    log_p = family.log_density(params, {}, jnp.asarray(x[:200]))
    gap = float(jnp.mean(_RING.log_prob(jnp.asarray(x[:200])) - log_p))

    def draw(path: Path) -> None:
        lines = np.asarray(flow_lines(family, params, {}, jax.random.key(2), 120))
        vector_fields.draw_flow(
            path,
            lines,
            lambda points: score_field(family, params, {}, jnp.asarray(points), sigma=0.5),
            x,
            field_name="scores at noise 0.5",
        )

    return Page(
        """
        SDE:  dx = (f x - g^2 score(x, t)) dt + g dW          backwards in t, with new noise at every step
        ODE:  dx = (f x - g^2 / 2 score(x, t)) dt             the same densities at every t, without noise
        log p_0(x) = log p_T(x_T) + int div u dt
        """,
        (ode.flow_fn, ode.heun, sde.euler_maruyama, flow_lines, vector_fields.draw_flow, score.ScoreModel),
        """
        Left: 120 draws of noise (orange) move along the lines of the ODE to samples (red), on the scale of the data.
        Two of them are never at one point at one time; in the plane, without time, lines may cross. Right: the scores
        that they follow, at one noise. The SDE reaches the same density along rough paths: the samples of both cost the
        same under the true density, as much as the data.

        Because the ODE is a flow, it also has a density. The last number is how far it is from the true one.
        """,
        (
            Number("-log p of the data, nats", cost["data"], 2.3, 2.5, ".2f"),
            Number("-log p of the samples of the ODE, nats", cost["ODE"], 2.2, 2.9, ".2f"),
            Number("-log p of the samples of the SDE, nats", cost["SDE"], 2.2, 2.9, ".2f"),
            Number("true log p of data minus that of the ODE, nats", gap, -0.02, 0.15, ".3f"),
        ),
        draw,
    )


@functools.cache
def _score_model() -> tuple[score.ScoreModel, Params]:
    """Trains a score-based model of the four normals, once for all pages."""

    def sampler(key: Array, predict_fn: ode.PredictFn, path: gaussian_path.GaussianPath, x_T: Array) -> Array:
        times = time_grids.uniform_log_snr(path, 40)
        return ode.denoise(predict_fn, ode.heun(predict_fn, path, x_T, times), times[-1])

    x, _ = _RING.sample(50_000)
    family = score.ScoreModel(
        network=DiffusionMLP(64, 2),
        space=flow.no_dequantization(),
        path=gaussian_path.variance_preserving(),
        shape=(2,),
        parameterization=path_objectives.noise_prediction(),
        times_fn=path_objectives.log_snr_times,
        sampler=PathSampler(sampler, None),
        sigma_data=float(np.std(x)),
        likelihood=score.ODELikelihood(tolerance=1e-4),
    )
    return family, training.train(family.model, {"x": x}, steps=4_000, batch_size=256, learning_rate=2e-3).params


def _chain(mixture: worlds.Mixture, start: Array, count: int) -> np.ndarray:
    run = functools.partial(langevin.langevin, num_steps=count, step_size=0.05)
    return np.asarray(jax.jit(lambda x: run(jax.random.key(0), x, lambda x: -mixture.log_prob(x)))(start))


def _modes(mixture: worlds.Mixture, x: np.ndarray) -> np.ndarray:
    """Shares of the points that are nearest to each mode."""
    nearest = np.argmin(np.sum((x[:, None] - np.asarray(mixture.means)[None]) ** 2, axis=2), axis=1)
    return np.bincount(nearest, minlength=len(mixture.means)) / len(x)


def _contours(axes: Any, mixture: worlds.Mixture, reach: float, sigma: float = 0.0) -> None:
    side = np.linspace(-reach, reach, 80)
    grid = jnp.asarray(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), jnp.float32)
    density = np.exp(np.asarray(mixture.log_prob(grid, 1.0, sigma))).reshape(80, 80)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.contourf(side, side, density, levels=8, cmap="Blues")
