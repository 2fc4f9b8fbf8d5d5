"""Monotone rational-quadratic splines: elementwise bijectors of the real line, and a coupling that applies them.

Notation: K bins between K + 1 knots (x_k, y_k) with derivative d_k > 0, k = 0 ... K; the ends are fixed,
x_0 = y_0 = -b, x_K = y_K = b, d_0 = d_K = 1, and outside (-b, b) the map is the identity ("linear tails"). In one bin
w = x_(k+1) - x_k, h = y_(k+1) - y_k, s = h / w; xi in [0, 1] is the relative position of x in the bin, eta of y.

    forward:     eta = (s xi^2 + d_k xi (1 - xi)) / q,      y = y_k + h eta                            (1)
                 q   = s (xi^2 + (1 - xi)^2) + (d_k + d_(k+1)) xi (1 - xi)                             (2)
    derivative:  dy/dx = s^2 (d_(k+1) xi^2 + 2 s xi (1 - xi) + d_k (1 - xi)^2) / q^2                   (3)
    inverse:     with p = d_k (1 - eta) - d_(k+1) eta  and  t = |p| + sqrt(p^2 + 4 s^2 eta (1 - eta))
                 xi = 2 s eta / (2 s eta + t)        if p >= 0,
                 xi = t / (2 s (1 - eta) + t)        if p < 0                                          (4)

(1) to (3) are the paper's formulas with a regrouped denominator; (4) is the root of its quadratic equation. In this
form every term except p is positive, so no difference cancels, no rounded number under the root is negative, and a knot
maps to a knot exactly.

The direction is z = g(x), as in `ops.bijectors`; each function returns the log-determinant of its own direction.

Source: Durkan, Bekasov, Murray & Papamakarios, "Neural Spline Flows", NeurIPS 2019, arXiv:1906.04032, section 3; the
splines are from Gregory & Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic Data", 1982.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import checks
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array

# Small enough to have no visible effect, large enough for float32 to separate knots and slopes.
MIN_BIN = 1e-3
MIN_DERIVATIVE = 1e-3


class Knots(NamedTuple):
    """The knots of one spline for each element.

    Attributes:
        x: [..., K + 1] ascending, from -b to b.
        y: [..., K + 1] ascending, from -b to b.
        derivative: [..., K + 1] positive, 1 at both ends.
    """

    x: Array
    y: Array
    derivative: Array


def spline_knots(
    raw: Array, *, bound: float, min_bin: float = MIN_BIN, min_derivative: float = MIN_DERIVATIVE
) -> Knots:
    """Computes the knots from the unconstrained output of a network; zeros give the identity.

    Widths and heights are softmaxes; the inner derivatives are softplus(raw + const) with softplus(const) = 1. Each
    stays above its minimum.

    Args:
        raw: [..., 3 K - 1]: K for the widths, K for the heights, K - 1 for the inner derivatives.
        bound: b > 0, half the width of the interval.
        min_bin: smallest width and height of a bin, as a share of the interval, in (0, 1/K).
        min_derivative: smallest derivative at an inner knot, in (0, 1).
    Returns:
        Knots of shape [..., K + 1].
    Raises:
        ValueError: the last axis is not 3 K - 1, or a hyper-parameter is out of its range.
    """
    chex.assert_type(raw, float)
    num_bins = (raw.shape[-1] + 1) // 3
    if raw.shape[-1] != 3 * num_bins - 1 or num_bins < 1:
        raise ValueError(f"The last axis must be 3 K - 1 for K bins; got {raw.shape[-1]}.")
    if bound <= 0 or not 0.0 < min_bin * num_bins < 1.0 or not 0.0 < min_derivative < 1.0:
        raise ValueError(
            "bound must be positive, min_bin between 0 and 1 / K, min_derivative between 0 and 1; "
            f"got bound={bound}, min_bin={min_bin}, min_derivative={min_derivative} and K={num_bins}."
        )
    raw_widths, raw_heights, raw_derivatives = jnp.split(raw, (num_bins, 2 * num_bins), axis=-1)
    one_at_zero = math.log(math.expm1(1.0 - min_derivative))
    inner = min_derivative + jax.nn.softplus(raw_derivatives + one_at_zero)
    end = jnp.ones((*raw.shape[:-1], 1), raw.dtype)
    return Knots(
        x=_partition(raw_widths, bound, min_bin),
        y=_partition(raw_heights, bound, min_bin),
        derivative=jnp.concatenate([end, inner, end], axis=-1),
    )


def rational_quadratic(x: Array, knots: Knots) -> tuple[Array, Array]:
    """Evaluates the spline and its log-derivative, eqs. (1) to (3).

    Args:
        x: [...] points; those outside (-b, b) do not move.
        knots: [..., K + 1] one spline for each point.
    Returns:
        y [...], log dy/dx [...], nats, not summed.
    """
    _assert_knots(x, knots)
    inside, point = _inside(x, knots.x)
    bin_ = _bin_of(point, knots.x, knots)
    xi = (point - bin_.x) / bin_.width
    y = bin_.y + bin_.height * _eta(xi, bin_)
    return jnp.where(inside, y, x), jnp.where(inside, _log_derivative(xi, bin_), 0.0)


def rational_quadratic_inverse(y: Array, knots: Knots) -> tuple[Array, Array]:
    """Evaluates the inverse of the spline and its log-derivative, eq. (4).

    Args:
        y: [...] points; those outside (-b, b) do not move.
        knots: [..., K + 1] one spline for each point.
    Returns:
        x [...], log dx/dy [...], nats, not summed.
    """
    _assert_knots(y, knots)
    inside, point = _inside(y, knots.y)
    bin_ = _bin_of(point, knots.y, knots)
    eta = (point - bin_.y) / bin_.height
    one_minus_eta = 1.0 - eta
    p = bin_.left * one_minus_eta - bin_.right * eta
    t = jnp.abs(p) + jnp.sqrt(p**2 + 4.0 * bin_.slope**2 * eta * one_minus_eta)
    to_left, to_right = 2.0 * bin_.slope * eta, 2.0 * bin_.slope * one_minus_eta
    xi = jnp.where(p >= 0.0, to_left / (to_left + t), t / (to_right + t))
    x = bin_.x + bin_.width * xi
    return jnp.where(inside, x, y), jnp.where(inside, -_log_derivative(xi, bin_), 0.0)


def spline_coupling(
    x: Array,
    raw: Array,
    *,
    bound: float,
    min_bin: float = MIN_BIN,
    min_derivative: float = MIN_DERIVATIVE,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """Applies a coupling in which every entry of x has its own spline, computed from the other part.

    Args:
        x: [B, ...] the part that is transformed, or all of it under a mask.
        raw: [B, ..., 3 K - 1] the splines, from the other part; see `spline_knots`.
        bound: b > 0, half the width of the interval on which the splines differ from the identity.
        min_bin: smallest width and height of a bin, as a share of the interval.
        min_derivative: smallest derivative at an inner knot.
        mask: bool, of the rank of `x`, True for the entries that are transformed; None transforms all.
    Returns:
        z [B, ...], log_det [B] = sum of the log-derivatives over the event.
    Raises:
        ValueError: as in `spline_knots`.
    Source: Durkan, Bekasov, Murray & Papamakarios, "Neural Spline Flows", NeurIPS 2019, arXiv:1906.04032, section 3.
    """
    knots = spline_knots(raw, bound=bound, min_bin=min_bin, min_derivative=min_derivative)
    return _coupled(rational_quadratic, x, knots, mask)


def spline_coupling_inverse(
    z: Array,
    raw: Array,
    *,
    bound: float,
    min_bin: float = MIN_BIN,
    min_derivative: float = MIN_DERIVATIVE,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """Inverts `spline_coupling`, in closed form.

    Args:
        z: [B, ...] the part that was transformed, or all of it under a mask.
        raw: [B, ..., 3 K - 1] the splines, from the other part, which the coupling did not change.
        bound: as in `spline_coupling`.
        min_bin: as in `spline_coupling`.
        min_derivative: as in `spline_coupling`.
        mask: as in `spline_coupling`.
    Returns:
        x [B, ...], log_det [B] of the inverse.
    Raises:
        ValueError: as in `spline_knots`.
    """
    knots = spline_knots(raw, bound=bound, min_bin=min_bin, min_derivative=min_derivative)
    return _coupled(rational_quadratic_inverse, z, knots, mask)


class _Bin(NamedTuple):
    """The bin of each point: its lower left knot, its sides, and the derivatives at both ends."""

    x: Array
    y: Array
    width: Array
    height: Array
    slope: Array
    left: Array
    right: Array


def _bin_of(point: Array, edges: Array, knots: Knots) -> _Bin:
    # A masked sum over the K bins is as fast as a gather on CPU, and its gradient needs no scatter.
    chosen = (point[..., None] >= edges[..., :-1]) & (point[..., None] < edges[..., 1:])

    def choose(of_bins: Array) -> Array:
        return jnp.sum(jnp.where(chosen, of_bins, 0.0), axis=-1)

    width, height = choose(jnp.diff(knots.x)), choose(jnp.diff(knots.y))
    left, right = choose(knots.derivative[..., :-1]), choose(knots.derivative[..., 1:])
    return _Bin(choose(knots.x[..., :-1]), choose(knots.y[..., :-1]), width, height, height / width, left, right)


def _eta(xi: Array, bin_: _Bin) -> Array:
    """Eq. (1)."""
    return (bin_.slope * xi**2 + bin_.left * xi * (1.0 - xi)) / _denominator(xi, bin_)


def _log_derivative(xi: Array, bin_: _Bin) -> Array:
    """Logarithm of eq. (3)."""
    numerator = bin_.right * xi**2 + 2.0 * bin_.slope * xi * (1.0 - xi) + bin_.left * (1.0 - xi) ** 2
    return 2.0 * jnp.log(bin_.slope) + jnp.log(numerator) - 2.0 * jnp.log(_denominator(xi, bin_))


def _denominator(xi: Array, bin_: _Bin) -> Array:
    """Eq. (2)."""
    return bin_.slope * (xi**2 + (1.0 - xi) ** 2) + (bin_.left + bin_.right) * xi * (1.0 - xi)


def _partition(raw: Array, bound: float, min_bin: float) -> Array:
    """Knots [..., K + 1] of bins whose shares of [-b, b] are a softmax [..., K]; both ends are exact."""
    shares = min_bin + (1.0 - min_bin * raw.shape[-1]) * jax.nn.softmax(raw, axis=-1)
    inner = bound * (2.0 * jnp.cumsum(shares[..., :-1], axis=-1) - 1.0)
    end = jnp.full((*raw.shape[:-1], 1), bound, raw.dtype)
    return jnp.concatenate([-end, inner, end], axis=-1)


def _inside(point: Array, edges: Array) -> tuple[Array, Array]:
    """Returns which points are inside, and points that all are, so that `where` passes no NaN to the gradient."""
    inside = (point > edges[..., 0]) & (point < edges[..., -1])
    return inside, jnp.where(inside, point, 0.0)


def _coupled(
    spline_fn: Callable[[Array, Knots], tuple[Array, Array]], x: Array, knots: Knots, mask: Array | None
) -> tuple[Array, Array]:
    checks.assert_batch_of_events(x)
    z, log_derivative = spline_fn(x, knots)
    if mask is None:
        return z, sum_except_batch(log_derivative)
    chex.assert_type(mask, bool)
    chex.assert_rank(mask, x.ndim)
    chex.assert_is_broadcastable(mask.shape, x.shape)
    return jnp.where(mask, z, x), sum_except_batch(jnp.where(mask, log_derivative, 0.0))


def _assert_knots(point: Array, knots: Knots) -> None:
    chex.assert_type([point, *knots], float)
    chex.assert_shape(knots, (*point.shape, None))
    chex.assert_equal_shape(knots)
