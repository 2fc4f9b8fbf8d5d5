"""Evaluation of samples: the Inception Score and how it is fooled, and the FID against the number of samples."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation import features, frechet
from gm_jax.evaluation.inception_score import inception_score
from gm_jax.evaluation.kernel_distance import kernel_distance
from gm_jax.evaluation.sample_metrics import gather
from gm_jax.ops.levels import to_unit
from gm_jax.plotting import images
from gm_jax.types import Array
from tools.lecture import worlds
from tools.lecture.page import Number, Page


def inception_score_fooled() -> Page:
    """The Inception Score: p(y | x), p(y), and noise that scores like data."""
    data = worlds.digits()
    real = np.rint(255 * np.asarray(to_unit(jnp.asarray(data["x"]), levels=17))).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, size=(500, 8, 8, 1)).astype(np.uint8)
    extractor = features.load("digits-cnn")
    sets = {
        "digits": real[:500],
        "only threes": real[data["label"] == 3],
        "noise": noise,
        "adversarial noise": _adversarial(extractor, noise),
    }
    log_probs = {name: gather(extractor, x, measure="256 levels").log_probs for name, x in sets.items()}
    score = {name: inception_score(found, num_splits=1).mean for name, found in log_probs.items()}

    def draw(path: Path) -> None:
        figure = Figure(figsize=(9, 5.6), layout="constrained")
        panels = figure.subplots(3, 4, height_ratios=[1.1, 1, 1])
        for column, (name, x) in enumerate(sets.items()):
            shown, each, mean = panels[:, column]
            framed = np.pad(x[:6, ..., 0], ((0, 0), (0, 1), (0, 1)), constant_values=255)
            shown.imshow(np.concatenate([np.concatenate(list(framed[row : row + 3]), 1) for row in (0, 3)]), "gray")
            shown.set(title=f"{name}\nscore {score[name]:.2f}", xticks=[], yticks=[])
            each.bar(range(10), np.exp(log_probs[name][0]), color="tab:blue")
            mean.bar(range(10), np.exp(log_probs[name]).mean(axis=0), color="tab:orange")
            for axes, label in ((each, "p(y | x), first image"), (mean, "p(y)")):
                axes.set(ylim=(0, 1.05), xticks=range(10))
                axes.set_title(label, fontsize="small")
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        IS = exp E_x KL(p(y | x) || p(y)),     p(y) = E_x p(y | x),      1 <= IS <= number of classes
        """,
        (inception_score, features.load, gather),
        """
        A classifier of digits takes the place of Inception. The score is high if the classifier is certain of each
        image (blue bars) and the images use all classes (orange bars). Data have both. One class alone has a
        score near 1, as good as its images are. Noise scores far above 1: the classifier has never seen noise, and is
        certain of it, of one class or another.

        The last column begins as noise. Each image climbs the gradient of the classifier's log p(y | x) for a class
        that we choose in turn. No image looks like a digit, yet the set scores as high as the data: the score sees
        only the classifier, and never the data.
        """,
        (
            Number("score of the digits", score["digits"], 9, 10, ".2f"),
            Number("score of one class", score["only threes"], 1, 1.3, ".2f"),
            Number("score of noise", score["noise"], 3, 7, ".2f"),
            Number("score of adversarial noise", score["adversarial noise"], 9, 10, ".2f"),
        ),
        draw,
    )


_COUNTS = np.array([100, 200, 500, 1_000, 2_000, 5_000])
_DIM, _SHIFT = 32, 0.5  # of the features; the distance of the means of two sets


def samples_of_fid() -> Page:
    """The Fréchet distance against the number of samples."""
    rng = np.random.default_rng(0)
    found = {}
    for name, shift in (("same distribution", 0.0), ("means 0.5 apart", _SHIFT)):
        move = np.eye(_DIM)[:1] * shift
        rows = [[_distances(rng, int(count), move) for _ in range(4)] for count in _COUNTS]
        found[name] = np.array(rows).mean(axis=1)  # [counts, (Frechet, kernel)]
    same, apart = found["same distribution"], found["means 0.5 apart"]
    products = same[:, 0] * _COUNTS

    def draw(path: Path) -> None:
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, values in found.items():
            left.plot(_COUNTS, values[:, 0], marker="o", label=name)
            right.plot(_COUNTS, values[:, 1], marker="o", label=name)
        for truth, name in ((0.0, "truth, same"), (_SHIFT**2, "truth, 0.5 apart")):
            left.axhline(truth, color="C0" if truth == 0.0 else "C1", lw=1.0, ls="--", label=name)
        right.axhline(0.0, color="k", lw=0.8, ls="--")
        left.set(xscale="log", xlabel="samples in each set", ylabel="Fréchet distance")
        right.set(xscale="log", xlabel="samples in each set", ylabel="kernel distance")
        left.legend()
        images.save_figure(path, figure)

    return Page(
        """
        FID = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)),     m, S: mean and covariance of the features
        """,
        (frechet.batch_moments, frechet.frechet_distance, kernel_distance),
        """
        The features are 32 normal numbers, so that the true distances are known: 0 and 0.25 (dashed, left). The Fréchet
        distance of finite sets lies above the truth. Its excess is inversely proportional to the number of samples:
        with N samples of each, N times the distance of two equal distributions is almost constant. A model that is
        measured with fewer samples looks worse. So distances are compared at one N only, and gm_jax writes N next to
        each.

        The kernel distance is unbiased: it scatters around its true value at every N.
        """,
        (
            Number("distance of equal distributions, 100 samples", same[0, 0], 2, 8, ".2f"),
            Number("distance of equal distributions, 5,000 samples", same[-1, 0], 0.02, 0.2, ".3f"),
            Number("N times distance, 5,000 samples over 500", products[-1] / products[2], 0.8, 1.2, ".2f"),
            Number("distance of means 0.5 apart, 5,000 samples; the truth is 0.25", apart[-1, 0], 0.27, 0.45, ".3f"),
            Number("kernel distance of equal distributions, 5,000 samples", same[-1, 1], -0.005, 0.005, ".4f"),
        ),
        draw,
    )


def _adversarial(extractor: features.Extractor, noise: np.ndarray) -> np.ndarray:
    """Moves images up the gradient of log p(y | x), y = 0, 1, ... 9 in turn, by steps of its sign."""
    wanted = jnp.arange(len(noise)) % 10

    def gain(x: Array) -> Array:
        log_probs = extractor.apply(extractor.params, x).log_probs
        return jnp.sum(jnp.take_along_axis(log_probs, wanted[:, None], axis=1))

    @jax.jit
    def step(x: Array) -> Array:
        return jnp.clip(x + 4.0 * jnp.sign(jax.grad(gain)(x)), 0.0, 255.0)

    x = jnp.asarray(noise, jnp.float32)
    for _ in range(30):  # not a loop of jax, in which gradients of convolutions are slow on CPUs
        x = step(x)
    return np.asarray(x).round().astype(np.uint8)


def _distances(rng: np.random.Generator, count: int, move: np.ndarray) -> tuple[float, float]:
    first, second = rng.normal(size=(count, _DIM)), rng.normal(size=(count, _DIM)) + move
    moments = [frechet.add_batch(frechet.no_moments(_DIM), x) for x in (first, second)]
    return frechet.frechet_distance(*moments), kernel_distance(first[:2_000], second[:2_000])
