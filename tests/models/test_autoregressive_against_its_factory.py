"""The class against the function that it replaces: equal bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import autoregressive
from gm_jax.models import autoregressive_networks as parts
from gm_jax.networks import fvsbn, made, nade, pixelcnn, wavenet
from gm_jax.ops import binarization
from gm_jax.plotting import autoregressive as plotting
from tests.models import old_autoregressive, old_conditionals, old_raster

BINARY = {"levels": 17}
ORDERS = np.random.default_rng(1).permuted(np.tile(np.arange(16), (3, 1)), axis=1)


def bernoulli(m):
    return m.bernoulli(lambda key, x: binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=17), levels=17)


def masked(module, structures, orders):
    return lambda masked_network, raster: masked_network(module, structures, orders)


CASES = {
    "fvsbn": (masked(fvsbn.FVSBN(16), ORDERS[:1], ORDERS[:1]), bernoulli, None),
    "nade labels": (masked(nade.NADE(16, 5, 3), ORDERS[:1], ORDERS[:1]), bernoulli, 3),
    "made orders": (masked(made.MADE(16, (12,)), made.mask_sets(ORDERS, (12,)), ORDERS), bernoulli, None),
    "made both": (masked(made.MADE(16, (12,), 3), made.mask_sets(ORDERS, (12,)), ORDERS), bernoulli, 3),
    "pixelcnn": (
        lambda masked_network, raster: raster.image_network(
            pixelcnn.GatedPixelCNN((4, 4, 1), 17, 6, features=4, layers=2, first_size=3)
        ),
        lambda m: m.discretized_logistic_mixture(levels=17),
        None,
    ),
    "wavenet": (
        lambda masked_network, raster: raster.sequence_network(
            wavenet.WaveNet(17, 17, features=4, skip=6, dilations=(1, 2)), length=16
        ),
        lambda m: m.categorical(levels=17),
        None,
    ),
}


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_the_class_is_the_factory_bit_for_bit(name):
    network, likelihood, classes = CASES[name]
    new = autoregressive.Autoregressive(
        network=network(parts.masked_network, parts), likelihood=likelihood(parts), shape=(4, 4, 1), num_classes=classes
    )
    old = old_autoregressive.autoregressive(
        network(old_conditionals.masked_network, old_raster),
        likelihood(old_conditionals),
        shape=(4, 4, 1),
        num_classes=classes,
    )
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 17, (50, 4, 4, 1)), jnp.uint8)
    key, batch = jax.random.key(3), {"x": x, "label": jnp.arange(50) % 3}
    for wrap in (lambda f, **_: f, jax.jit):
        params, state = wrap(old.model.init)(key, batch)
        same(wrap(new.model.init)(key, batch), (params, state))
        params = jax.tree.map(lambda leaf: leaf + 0.1, params)
        grad = lambda m: jax.value_and_grad(m.objectives[0].loss, has_aux=True)  # noqa: E731
        same(wrap(grad(new.model))(params, state, key, batch), wrap(grad(old.model))(params, state, key, batch))
        same(wrap(new.model.log_prob)(params, state, key, x), wrap(old.model.log_prob)(params, state, key, x))
        for options in ({}, {"temperature": 0.7}, {"label": jnp.arange(5) % 3} if classes else {}):
            one, other = (lambda p, s, k, m=m, options=options: m.sample(p, s, k, 5, **options) for m in (new, old))
            same(wrap(one)(params, state, key), wrap(other)(params, state, key))
        one, other = (wrap(m.complete, static_argnums=3)(params, key, x, 7) for m in (new, old))
        same(one, other)
        pictures = plotting.grids(new, (4, 4, 1)), old_autoregressive.grids(old, (4, 4, 1))
        same(*(wrap(picture["completions"])(params, state, key, x) for picture in pictures))
