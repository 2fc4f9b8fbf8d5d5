"""Mode collapse, and the five techniques of the improved GAN."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from gm_jax.data import toy
from gm_jax.evaluation.mode_coverage import ModeCoverage, mode_coverage
from gm_jax.losses import gan as losses
from gm_jax.models import adversarial_objectives, gan
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination
from gm_jax.networks.normalization import VirtualBatchNorm, WithReferenceBatch
from gm_jax.plotting import images
from tools.lecture import training, worlds
from tools.lecture.page import Number, Page

_RING, _STEPS, _KEPT = "toy:eight_gaussians", 2_000, 4
_MODES = {
    "plain": (0, 4.5, ".2f"),
    "feature matching": (6, 8, ".2f"),
    "minibatch discrimination": (5, 8, ".2f"),
    "historical averaging": (5, 8, ".2f"),
    "one-sided label smoothing": (0, 4.5, ".2f"),
    "virtual batch norm": (4, 8, ".2f"),
}  # ranges of the numbers of covered modes, and their format
Along = Mapping[str, list[np.ndarray]]  # name -> samples [N, 2] at each stop


def mode_collapse() -> Page:
    """Mode collapse, and five techniques against it."""
    samples = {name: _samples_along(family) for name, family in _families().items()}
    modes, std = toy.eight_gaussians_modes()
    covered = {name: [mode_coverage(x, modes, std) for x in along] for name, along in samples.items()}
    mean = {name: float(np.mean([found.modes_covered for found in along])) for name, along in covered.items()}
    share = {name: float(np.mean([found.share_at_modes for found in along])) for name, along in covered.items()}
    cloud = share["feature matching"]
    data = toy.toy_splits(_RING)["test"]["x"]
    blind = mode_coverage(np.random.default_rng(0).normal(scale=np.std(data), size=data.shape), modes, std)

    return Page(
        """
        feature matching:          the generator minimises |E f(x) - E f(G(z))|^2, f: features inside D
        minibatch discrimination:  D also sees sum_j exp(-|M_i - M_j|), how close an example is to its batch
        historical averaging:      + |theta - mean of the past theta|^2 for both players
        one-sided smoothing:       D's target for data is 0.9 instead of 1
        virtual batch norm:        normalises by a fixed reference batch
        """,
        (
            losses.feature_matching_loss,
            MinibatchDiscrimination,
            losses.historical_averaging_penalty,
            losses.discriminator_loss,
            VirtualBatchNorm,
            mode_coverage,
        ),
        """
        A setting that is made to fail: the generator learns four times as fast as the discriminator, and both have
        momentum. Columns are techniques, rows are moments of the training, crosses are the eight modes of the data.
        The plain GAN reaches a few modes only. As soon as the discriminator has learned to refuse them, all samples
        move on to the next.

        Feature matching asks for the right mean of many features, which a single mode does not have: the samples do
        not collapse, but they are a cloud that finds no mode either. The last number is the share near a mode of such
        a cloud, one normal as wide as the data, which reaches all eight modes too. Minibatch discrimination lets the
        discriminator see that a batch is too alike: its samples are a ring. Historical averaging ties the players to
        their past and stops the jumps, at a cloud. Virtual batch norm helps in part. One-sided smoothing does not
        help here: it is against a discriminator that is too sure.
        """,
        (
            *(Number(f"modes of 8, {name}, mean over the rows", mean[name], *_MODES[name]) for name in mean),
            Number(
                "share near a mode, feature matching, mean over the rows", share["feature matching"], 0.25, 0.6, ".2f"
            ),
            Number("share near a mode, minibatch discrimination", share["minibatch discrimination"], 0.45, 1, ".2f"),
            Number(
                "the same, less that of feature matching", share["minibatch discrimination"] - cloud, 0.05, 1, ".2f"
            ),
            Number("modes of 8 of one normal as wide as the data", blind.modes_covered, 8, 8, ".0f"),
            Number("share near a mode of that normal", blind.share_at_modes, 0.35, 0.48, ".2f"),
        ),
        partial(_draw, samples, covered),
    )


def _families() -> dict[str, gan.GAN]:
    """The plain GAN, and one GAN for each technique."""
    return {
        "plain": _family(),
        "feature matching": _family(feature_matching=True),
        "minibatch discrimination": _family(MinibatchDiscrimination(5, 3)),
        "historical averaging": _family(historical_averaging=1.0),
        "one-sided label smoothing": _family(losses=adversarial_objectives.non_saturating(real_target=0.9)),
        "virtual batch norm": _family(generator=WithReferenceBatch(partial(MLPGenerator, (64, 64), (2,)))),
    }


def _draw(samples: Along, covered: Mapping[str, list[ModeCoverage]], path: Path) -> None:
    """Draws a column for each technique, and a row for each stop."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    panels = figure.subplots(_KEPT, len(samples), sharex=True, sharey=True)
    for column, (name, along) in enumerate(samples.items()):
        for row, (x, found) in enumerate(zip(along, covered[name], strict=True)):
            axes = panels[row, column]
            axes.scatter(*x[:500].T, s=1.5, color="tab:blue")
            axes.plot(*np.asarray(toy.eight_gaussians_modes()[0]).T, "k+", ms=5)
            axes.set(aspect="equal", xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), xticks=[], yticks=[])
            axes.set_title(_heading(name if row == 0 else "", found), fontsize="small")
    for row in range(_KEPT):
        panels[row, 0].set_ylabel(f"step {_STEPS // _KEPT * (row + 1):,}")
    images.save_figure(path, figure, dpi=80)


def _heading(name: str, found: ModeCoverage) -> str:
    return (f"{name}\n" if name else "") + f"{found.modes_covered} modes, {found.share_at_modes:.0%} near one"


def _family(minibatch_discrimination: MinibatchDiscrimination | None = None, **settings: Any) -> gan.GAN:
    return gan.GAN(
        **{
            "generator": MLPGenerator((64, 64), (2,)),
            "discriminator": MLPDiscriminator((64, 64), minibatch_discrimination=minibatch_discrimination),
            "losses": adversarial_objectives.non_saturating(),
            "scaling": gan.points(),
            "latent_dim": 2,
            **settings,
        }
    )


def _samples_along(family: gan.GAN) -> list[np.ndarray]:
    """Trains with a generator that learns four times as fast as the discriminator; 2,000 samples at each stop."""
    optimizers = {"generator": optax.adam(2e-3), "discriminator": optax.adam(5e-4)}
    data = {"x": worlds.points(_RING, 50_000)}
    settings = {"steps": _STEPS, "every": _STEPS // _KEPT, "batch_size": 64, "optimizers": optimizers}
    draw = jax.jit(lambda params, model_state: family.sample(params, model_state, jax.random.key(5), 2_000))
    states = list(training.states(family.model, data, **settings))[1:]
    return [np.asarray(draw(state.params, state.model_state)) for state in states]
