"""Normalizing flows: a density pushed through the layers."""

from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from gm_jax.data import toy
from gm_jax.losses import flow as losses
from gm_jax.models import flow
from gm_jax.networks import realnvp
from gm_jax.ops import bijectors
from gm_jax.plotting import densities, images
from gm_jax.types import Array, Params
from tools.lecture import training, worlds
from tools.lecture.page import Number, Page

_BLOCKS = 5


def layers_of_a_flow() -> Page:
    """A density pushed through a flow, layer by layer."""
    network = realnvp.RealNVP((2,), (64, 64), _BLOCKS)
    family = flow.Flow(network=network, prior=flow.standard_normal(), dequantization=flow.no_dequantization())
    data = {"x": worlds.points("toy:two_moons", 50_000)}
    params = training.train(family.model, data, steps=2_500, batch_size=256).params
    splits = toy.toy_splits("toy:two_moons")["test"]
    x, label = splits["x"][:2_000], splits["label"][:2_000]
    states, log_dets = _through(params, x)
    z, log_det = jnp.asarray(states[-1]), jnp.asarray(log_dets[-1])
    by_hand = float(np.mean(losses.change_of_variables_nll(losses.standard_normal_log_prob(z), log_det)))
    nll = -float(jnp.mean(family.log_density(params, {}, jnp.asarray(x))))
    entropy = -float(np.mean(toy.toy_log_density("toy:two_moons")(x.astype(np.float64))))
    back = np.asarray(family.decode(params, {}, z))

    def draw(path: Path) -> None:
        figure = Figure(figsize=(10, 6.2), layout="constrained")
        panels = figure.subplots(2, 3).flat
        for count, (axes, points) in enumerate(zip(panels, states, strict=True)):
            axes.scatter(*points.T, c=np.where(label == 0, "tab:blue", "tab:orange"), s=3)
            axes.set(aspect="equal", xlim=(-4.5, 4.5), ylim=(-4, 4))
            name = "data x" if count == 0 else f"after block {count}" + (": the latent z" if count == _BLOCKS else "")
            axes.set_title(f"{name}\nmean log |det| so far {log_dets[count].mean():.2f}", fontsize="medium")
        images.save_figure(path, figure, dpi=80)

    return Page(
        """
        z = f_5(... f_1(x)),     log p(x) = log N(z; 0, I) + sum over layers of log |det df_i / dx|
        a coupling:  z_1 = x_1,   z_2 = x_2 exp(s(x_1)) + t(x_1),     log |det| = sum s(x_1)
        """,
        (flow.Flow, realnvp.RealNVP, losses.change_of_variables_nll, bijectors.affine_coupling, densities.draw_density),
        """
        Two moons pass through a RealNVP of five blocks, each of two couplings and a normalisation. Every block bends
        the plane a little and never tears it. In the end the points have a normal distribution, and each moon
        has kept a half of it. The log-determinants add up: they say how much the plane was stretched at x, and the
        density is what the normal density and the stretching give together.

        The training brings -log p near the entropy of the data, which no model can beat on average.
        """,
        (
            Number("-log p of the test points, nats", nll, 2.38, 2.6, ".3f"),
            Number(
                "mean -log N(z) minus the log-determinants of the last panel, minus the number above",
                by_hand - nll,
                -1e-3,
                1e-3,
                ".0e",
            ),
            Number("entropy of the data on the same points, nats", entropy, 2.35, 2.43, ".3f"),
            Number("largest error of x from its latent", float(np.max(np.abs(back - x))), 0, 1e-2, ".1g"),
            Number(
                "largest covariance of z apart from I",
                float(np.max(np.abs(np.cov(states[-1].T) - np.eye(2)))),
                0,
                0.25,
                ".2f",
            ),
        ),
        draw,
    )


def _through(params: Params, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Points before the first block and after each, [N, 2], and the sums of log |det| so far, [N]."""
    states, log_dets = [x], [np.zeros(len(x))]
    for count in range(1, _BLOCKS + 1):
        # The blocks' parameters are stacked, so that the first ones are a flow of their own.
        first = realnvp.RealNVP((2,), (64, 64), count)
        kept = jax.tree.map(lambda leaf, count=count: leaf[:count], params["flow"])
        z, log_det = cast(tuple[Array, Array], first.apply({"params": kept}, jnp.asarray(x), method="forward"))
        states.append(np.asarray(z))
        log_dets.append(np.asarray(log_det))
    return states, log_dets
