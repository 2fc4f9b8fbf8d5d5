"""The class against the function that it replaces: equal bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import flow
from gm_jax.networks.glow import Glow
from gm_jax.networks.nice import NICE
from gm_jax.networks.realnvp import RealNVP
from gm_jax.networks.spline_flow import SplineFlow
from gm_jax.plotting import flow as plotting
from tests.models import old_flow

CASES = {
    "points": (RealNVP((2,), (8,), 3), None, None, "standard_normal"),
    "spline": (SplineFlow((2,), (8,), 2, 5), None, None, "standard_logistic"),
    **{f"levels {n}": (NICE((4, 4, 1), (8,)), n, None, "standard_logistic") for n in (2, 17, 256)},
    "alpha": (NICE((4, 4, 1), (8,)), 17, 0.05, "standard_normal"),
    "glow": (Glow((4, 4, 1), scales=1, steps=2, features=4), 17, 0.05, "standard_normal"),
}


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_the_class_is_the_factory_bit_for_bit(name):
    network, levels, alpha, prior = CASES[name]
    space = flow.no_dequantization() if levels is None else flow.uniform_dequantization(levels=levels, alpha=alpha)
    old_space = old_flow.points() if levels is None else old_flow.dequantized(levels=levels, alpha=alpha)
    new = flow.Flow(network=network, prior=getattr(flow, prior)(), dequantization=space)
    old = old_flow.flow(network, getattr(old_flow, prior)(), old_space)
    rng = np.random.default_rng(0)
    shape = network.event_shape
    x = rng.normal(size=(20, *shape)) if levels is None else rng.integers(0, levels, (20, *shape))
    x = jnp.asarray(x, jnp.float32 if levels is None else jnp.uint8)
    key, batch = jax.random.key(3), {"x": x}
    for wrap in (lambda f, **_: f, jax.jit):
        variables = wrap(old.model.init)(key, batch)
        same(wrap(new.model.init)(key, batch), variables)
        params, state = variables
        grad = lambda m: jax.value_and_grad(m.objectives[0].loss, has_aux=True)  # noqa: E731
        same(wrap(grad(new.model))(params, state, key, batch), wrap(grad(old.model))(params, state, key, batch))
        same(wrap(new.model.log_prob)(params, state, key, x), wrap(old.model.log_prob)(params, state, key, x))
        z = wrap(new.encode)(params, state, key, x)
        same(z, wrap(old.encode)(params, state, key, x))
        same(wrap(new.decode)(params, state, z), wrap(old.decode)(params, state, z))
        h = 0.1 * jnp.asarray(rng.normal(size=(5, *shape)), jnp.float32)
        same(wrap(new.log_density)(params, state, h), wrap(old.log_density)(params, state, h))
        for one, other in ((new.model.sample, old.model.sample), (new.sample_with_log_density, old.draw)):
            one, other = wrap(one, static_argnums=3), wrap(other, static_argnums=3)
            same(one(params, state, key, 5), other(params, state, key, 5))
        warm = lambda m, p=params, s=state: lambda: m.sample(p, s, key, 5, temperature=0.7)  # noqa: E731
        same(wrap(warm(new))(), wrap(warm(old))())
        if wrap is jax.jit:
            for one, other in zip(
                plotting.grids(new, shape).values(), old_flow.grids(old, shape).values(), strict=True
            ):
                same(wrap(one)(params, state, key, x), wrap(other)(params, state, key, x))
