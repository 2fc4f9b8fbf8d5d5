"""Ordinary differential equations with steps that are chosen for a tolerance, between two times of a Gaussian path.

    dy / dt = f(y, t)    as    dy / dw = f(y, t(w)) t'(w),    t(w) = start + (end - start) sin^2(pi w / 2)     (1)

for w from 0 to 1, by the method of Dormand and Prince of order 5. The velocity of a path may be as steep as 1 / sqrt(t)
at the data, which (1) makes smooth; and the solver steps beyond its end and interpolates, so that t itself would leave
the range of the path, whereas t(w) turns back.

Source: Dormand & Prince, "A family of embedded Runge-Kutta formulae", 1980; `jax.experimental.ode`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.ode import odeint

from gm_jax.types import Array, PyTree

FieldFn = Callable[[PyTree, Array], PyTree]  # (y, scalar t) -> dy / dt, in the structure of y


def solve(
    field_fn: FieldFn, y: PyTree, *, start: float | Array, end: float | Array, rtol: float = 1e-5, atol: float = 1e-5
) -> PyTree:
    """Solves (1) from one time to another, forwards or backwards.

    The steps are chosen for all of y together: map the function over examples with `jax.vmap`, so that none depends on
    its neighbours.

    Args:
        field_fn: f.
        y: the state at the time `start`, floating arrays.
        start: a time.
        end: another time, before or after it.
        rtol: tolerance of the error of a step, relative to y.
        atol: tolerance of the error of a step, absolute.
    Returns:
        The state at the time `end`.
    Raises:
        ValueError: a tolerance is not above 0.
    """
    if rtol <= 0.0 or atol <= 0.0:
        raise ValueError(f"tolerances must be above 0: got rtol {rtol} and atol {atol}.")
    dtype = jnp.result_type(*jax.tree.leaves(y))

    def field(y: PyTree, w: Array) -> PyTree:
        t = start + (end - start) * jnp.square(jnp.sin(0.5 * math.pi * w))
        slope = 0.5 * math.pi * (end - start) * jnp.sin(math.pi * w)
        return jax.tree.map(lambda part, value: (slope * part).astype(value.dtype), field_fn(y, t), y)

    ends = jnp.array([0.0, 1.0], dtype)
    return jax.tree.map(lambda path: path[-1], odeint(field, y, ends, rtol=rtol, atol=atol))
