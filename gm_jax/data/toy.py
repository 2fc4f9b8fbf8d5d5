"""Two-dimensional toy densities with a sampler and an exact log-density each.

Notation: x in R^2; N(x; m, S) a normal density; R(a) the rotation by the angle a; k a mode, which is the label.
All densities cover about [-4, 4]^2.

    two_moons         x = s (2 cos t - 1, 2 sin t - 1/2) + 0.2 eps,  s = +1 (k = 0) or -1 (k = 1),  t ~ U(0, pi)
                      p(x) = 1/2 sum_s 1/pi int_0^pi N(x; s (2 cos t - 1, 2 sin t - 1/2), 0.2^2 I) dt        (1)
    eight_gaussians   x = 2 sqrt 2 (cos(k pi/4), sin(k pi/4)) + eps / (2 sqrt 2),  k = 0..7
                      p(x) = 1/8 sum_k N(x; 2 sqrt 2 (cos(k pi/4), sin(k pi/4)), I/8)                        (2)
    checkerboard      x uniform on the 8 cells of the 4 x 4 board over [-4, 4)^2 whose column + row is even
                      p(x) = 1/32 on those cells, 0 elsewhere                                                (3)
    pinwheel          x = 2 R(2 pi k/5 + exp(|a|)/4) a,  a ~ N((1, 0), diag(0.3^2, 0.1^2)),  k = 0..4
                      p(x) = 1/5 sum_k N(R(-2 pi k/5 - exp(|x|/2)/4) x/2; (1, 0), diag(0.3^2, 0.1^2)) / 4    (4)

eps ~ N(0, I). Every mode has the same probability. (1) is scikit-learn's `make_moons` with noise 0.1, doubled and
centred so that one moon is minus the other. Its integral has no closed form and is computed by Gauss-Legendre
quadrature, to float64 accuracy within 20 of the origin. The pinwheel of Johnson et al. (2016, arXiv:1603.06277) twists
by exp of a's first coordinate. Here it twists by exp |a|: a rotation by a function of the radius preserves radius and
area, so the inverse and the density (4) have closed forms.
"""

import functools
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gm_jax.data.names import unknown_name

PREFIX = "toy:"
NUM_EXAMPLES = {"train": 50_000, "validation": 10_000, "test": 10_000}

_MOON_STD = 0.2
_RING_RADIUS, _RING_STD = 2 * np.sqrt(2), 1 / (2 * np.sqrt(2))
_PINWHEEL_STDS = np.array([0.3, 0.1])


class Toy(NamedTuple):
    """One toy density.

    Attributes:
        sample: (generator, modes [N]) -> [N, 2] float64: x given the mode.
        log_density: [N, 2] float64 -> [N] nats.
        num_modes: number of equally probable modes; they are the labels.
    """

    sample: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    log_density: Callable[[np.ndarray], np.ndarray]
    num_modes: int


def toy_splits(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Draws the splits of a toy source, always the same arrays.

    Args:
        name: a key of `TOYS`, with or without the prefix "toy:".
    Returns:
        {"train" (50,000), "validation" (10,000), "test" (10,000)} -> {"x": [N, 2] float32, "label": [N] int32}.
    Raises:
        UserError: there is no such toy.
    """
    toy, splits = _toy(name), {}
    for index, (split, num_examples) in enumerate(NUM_EXAMPLES.items()):
        rng = np.random.default_rng([zlib.crc32(name.removeprefix(PREFIX).encode()), index])
        modes = rng.integers(toy.num_modes, size=num_examples)
        splits[split] = {"x": toy.sample(rng, modes).astype(np.float32), "label": modes.astype(np.int32)}
    return splits


def toy_log_density(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the exact log-density of a toy source, (1) to (4).

    Args:
        name: a key of `TOYS`, with or without the prefix "toy:".
    Returns:
        A function from points [N, 2] to their log-density [N], float64 nats; -inf outside the support.
    Raises:
        UserError: there is no such toy.
    """
    toy = _toy(name)

    def log_density(points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"Points must be [N, 2]; got {points.shape}.")
        return toy.log_density(points)

    return log_density


def eight_gaussians_modes() -> tuple[np.ndarray, float]:
    """Returns the means [8, 2] of the eight Gaussians and their standard deviation, (2)."""
    return _ring(np.arange(8)), float(_RING_STD)


@functools.cache
def toy_entropy(name: str) -> float:
    """Computes the entropy of a toy source in nats: the lowest expected NLL that a model can reach.

    It uses the midpoint rule over [-6, 6]^2 with 600 x 600 points, accurate to 1e-9 nats; the error includes the
    pinwheel's tails outside.

    Args:
        name: a key of `TOYS`, with or without the prefix "toy:".
    Returns:
        -integral of p log p.
    Raises:
        UserError: there is no such toy.
    """
    middles = (np.arange(600) + 0.5) / 50 - 6
    log_p = toy_log_density(name)(np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2))
    log_p = log_p[log_p > -700]  # if p underflows, p log p does too
    return float(-np.sum(np.exp(log_p) * log_p) / 50**2)


def _toy(name: str) -> Toy:
    try:
        return TOYS[name.removeprefix(PREFIX)]
    except KeyError:
        raise unknown_name("toy density", name, [PREFIX + toy for toy in sorted(TOYS)]) from None


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    """Log of the sum of exp over the last axis; finite if the largest entry is."""
    largest = x.max(axis=-1, keepdims=True)
    return largest[..., 0] + np.log(np.exp(x - largest).sum(axis=-1))


def _moon(t: np.ndarray) -> np.ndarray:
    return np.stack([2 * np.cos(t) - 1, 2 * np.sin(t) - 0.5], axis=-1)


def _two_moons_sample(rng: np.random.Generator, modes: np.ndarray) -> np.ndarray:
    sign = 1 - 2 * modes[:, None]
    return sign * _moon(rng.uniform(0, np.pi, len(modes))) + _MOON_STD * rng.standard_normal((len(modes), 2))


@functools.cache
def _moon_quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Returns centres [256, 2] of both moons and log-weights [256], which include 1/2 and 1/pi and sum to one."""
    # Nodes are at most 0.025 apart in t; the integrand is 0.03 wide at a distance of 20, and wider at smaller ones.
    nodes, weights = np.polynomial.legendre.leggauss(128)
    arc = _moon((nodes + 1) * np.pi / 2)
    return np.concatenate([arc, -arc]), np.log(np.concatenate([weights, weights]) / 4)


def _two_moons_log_density(points: np.ndarray) -> np.ndarray:
    centres, log_weights = _moon_quadrature()
    variance = _MOON_STD**2
    # |x - c|^2 expanded, so that a matrix product does the work; float64 is accurate enough.
    offset = log_weights - np.square(centres).sum(-1) / (2 * variance)
    pieces = [np.empty(0)]
    for start in range(0, len(points), 8192):  # [8192, 256] at a time: 16 MB for any number of points
        x = points[start : start + 8192]
        log_sum = _log_sum_exp(x @ centres.T / variance + offset[None])
        pieces.append(log_sum - np.square(x).sum(-1) / (2 * variance) - np.log(2 * np.pi * variance))
    return np.concatenate(pieces)


def _ring(modes: np.ndarray) -> np.ndarray:
    angles = modes * np.pi / 4
    return _RING_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _eight_gaussians_sample(rng: np.random.Generator, modes: np.ndarray) -> np.ndarray:
    return _ring(modes) + _RING_STD * rng.standard_normal((len(modes), 2))


def _eight_gaussians_log_density(points: np.ndarray) -> np.ndarray:
    offsets = points[:, None] - _ring(np.arange(8))[None]
    log_norm = -np.log(8 * 2 * np.pi * _RING_STD**2)
    return log_norm + _log_sum_exp(-np.square(offsets).sum(-1) / (2 * _RING_STD**2))


def _checkerboard_sample(rng: np.random.Generator, modes: np.ndarray) -> np.ndarray:
    columns = modes // 2
    rows = 2 * (modes % 2) + columns % 2
    lower = 2.0 * np.stack([columns, rows], axis=-1) - 4
    x = lower + 2 * rng.random((len(modes), 2))
    # Rounding to float32 would move a few points to the upper edge, which belongs to a cell of density zero.
    last = np.nextafter((lower + 2).astype(np.float32), np.float32(-np.inf))
    return np.minimum(x, last)


def _checkerboard_log_density(points: np.ndarray) -> np.ndarray:
    cells = np.floor(points / 2).sum(axis=-1)
    on_board = ((points >= -4) & (points < 4)).all(axis=-1)
    return np.where(on_board & (cells % 2 == 0), -np.log(32.0), -np.inf)


def _rotate(points: np.ndarray, angles: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angles), np.sin(angles)
    x, y = points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _pinwheel_angle(modes: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return 2 * np.pi * modes / 5 + np.exp(np.minimum(radius, 700)) / 4  # exp(710) overflows


def _pinwheel_sample(rng: np.random.Generator, modes: np.ndarray) -> np.ndarray:
    a = np.array([[1.0, 0.0]]) + _PINWHEEL_STDS[None] * rng.standard_normal((len(modes), 2))
    return 2 * _rotate(a, _pinwheel_angle(modes, np.linalg.norm(a, axis=-1)))


def _pinwheel_log_density(points: np.ndarray) -> np.ndarray:
    half = points / 2
    angles = _pinwheel_angle(np.arange(5)[None], np.linalg.norm(half, axis=-1)[:, None])  # [N, 5]
    a = _rotate(half[:, None], -angles)  # [N, 5, 2]
    z = (a - np.array([1.0, 0.0])) / _PINWHEEL_STDS
    log_norm = -np.log(5 * 4 * 2 * np.pi * _PINWHEEL_STDS.prod())
    return log_norm + _log_sum_exp(-np.square(z).sum(-1) / 2)


TOYS = {
    "two_moons": Toy(_two_moons_sample, _two_moons_log_density, 2),
    "eight_gaussians": Toy(_eight_gaussians_sample, _eight_gaussians_log_density, 8),
    "checkerboard": Toy(_checkerboard_sample, _checkerboard_log_density, 8),
    "pinwheel": Toy(_pinwheel_sample, _pinwheel_log_density, 5),
}
