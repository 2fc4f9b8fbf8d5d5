"""Errors that are divided by their expected size, against errors of equal weight, and what is learned."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import diffusion, diffusion_space, learned_weight
from gm_jax.networks.log_error import LogError
from gm_jax.ops import diffusion_process
from gm_jax.samplers import ddpm

SCHEDULE, KEY = diffusion_process.cosine_schedule(8), jax.random.key(0)
CAPTIONS = jnp.asarray(np.random.default_rng(1).integers(1, 5, (6, 3)), jnp.int32)
BATCH = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32), "tokens": CAPTIONS}


class Scaled(nn.Module):
    """A network that reads its caption: weight x times the mean of the words."""

    @nn.compact
    def __call__(self, x, t, label=None, *, train=False):
        return self.param("weight", nn.initializers.normal(1.0), ()) * x * jnp.mean(label, axis=1)[:, None]


class Told(nn.Module):
    """u = value + t / 4 + the first word / 3."""

    value: float = -0.3

    @nn.compact
    def __call__(self, t, caption):
        return self.param("value", nn.initializers.constant(self.value), ()) + t / 4 + caption[:, 0] / 3


def of(log_error=None, **settings):
    defaults = {
        "network": Scaled(),
        "space": diffusion_space.points(),
        "schedule": SCHEDULE,
        "shape": (2,),
        "parameterization": diffusion.v_prediction(),
        "sampler": ddpm.ancestral(SCHEDULE, 4, variance_fn=diffusion_process.posterior_variance),
        "variance_fn": diffusion_process.posterior_variance,
        "num_tokens": 3,
        "drop_label": 0.3,
    }
    if log_error is None:
        return diffusion.Diffusion(**{**defaults, **settings})
    return learned_weight.WeightedDiffusion(log_error=log_error, **{**defaults, **settings})


def with_log_error(params, value):
    return {"diffusion": {**params["diffusion"], "log_error": {"value": jnp.float32(value)}}}


def test_the_loss_is_the_formula_on_the_errors_times_and_captions_that_the_network_saw():
    weighted, plain = of(Told()), of()
    params, _ = plain.init(KEY, BATCH)
    error, t, label = plain.squared_error(params, KEY, BATCH)
    assert len(set(t.tolist())) > 2
    assert 0 < int((label == 0).all(axis=1).sum()) < 6  # some captions are hidden
    u = -0.3 + np.asarray(t) / 4 + np.asarray(label)[:, 0] / 3
    expected = np.mean(np.asarray(error, np.float64) / 2 * np.exp(-u) + u)
    loss, (_, metrics) = weighted.loss(with_log_error(params, -0.3), {}, KEY, BATCH)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["squared_error"], np.mean(error) / 2, rtol=1e-6)


def test_an_expected_error_of_one_leaves_the_gradient_of_the_network_as_it_is():
    class One(Told):
        def __call__(self, t, caption):
            return 0.0 * super().__call__(t, caption)

    params, _ = of().init(KEY, BATCH)
    gradient = jax.grad(lambda p: of().loss(p, {}, KEY, BATCH)[0])(params)["diffusion"]
    weighted = jax.grad(lambda p: of(One()).loss(p, {}, KEY, BATCH)[0])(with_log_error(params, 0.0))["diffusion"]
    np.testing.assert_allclose(weighted["weight"], gradient["weight"], rtol=1e-6)
    assert abs(float(gradient["weight"])) > 1e-2


def test_parameters_of_the_network_samples_and_bounds_are_those_of_the_plain_model():
    weighted, plain = of(LogError(5, 8), num_bound_terms=3), of(num_bound_terms=3)
    params, state = weighted.init(KEY, BATCH)
    expected, _ = plain.init(KEY, BATCH)
    assert params["diffusion"]["weight"] == expected["diffusion"]["weight"]
    samples = [m.sample(p, state, KEY, 6, label=CAPTIONS) for m, p in ((weighted, params), (plain, expected))]
    np.testing.assert_array_equal(*samples)
    bounds = [m.log_prob(p, state, KEY, BATCH["x"]) for m, p in ((weighted, params), (plain, expected))]
    np.testing.assert_array_equal(bounds[0].log_prob, bounds[1].log_prob)
    assert bounds[0].kind == "lower_bound"


@pytest.mark.parametrize("seed", [0, 1])
def test_training_learns_the_errors_of_each_caption(seed):
    """Words make the targets of two captions spread by 1 and by 3; a network that knows nothing errs by as much."""

    class Nothing(nn.Module):
        @nn.compact
        def __call__(self, x, t, label=None, *, train=False):
            return self.param("weight", nn.initializers.zeros, ()) * x

    model = of(LogError(3, 16), network=Nothing(), drop_label=0.0)
    rng = np.random.default_rng(seed)
    tokens = jnp.asarray(np.repeat([[1, 0, 0], [2, 0, 0]], 256, axis=0), jnp.int32)
    x = jnp.asarray(np.repeat([1.0, 3.0], 256)[:, None] * rng.normal(size=(512, 2)), jnp.float32)
    batch = {"x": x, "tokens": tokens}
    params, _ = model.init(KEY, batch)

    @jax.jit
    def step(params, i):
        gradient = jax.grad(lambda p: model.loss(p, {}, jax.random.fold_in(KEY, i), batch)[0])(params)
        return jax.tree.map(lambda p, g: p - 0.2 / (2 + i / 100) * g, params, gradient)

    for i in range(400):
        params = step(params, i)
        params["diffusion"]["weight"] = jnp.float32(0.0)  # the network stays as it is
    for t in (2, 5, SCHEDULE.num_steps):
        times = jnp.full(2, t)
        u = model.log_error.apply({"params": params["diffusion"]["log_error"]}, times, tokens[jnp.array([0, 256])])
        # v = a eps - sigma x_0, and the variances of x_0 are 1 and 9.
        expected = SCHEDULE.signal(times) ** 2 + SCHEDULE.noise(times) ** 2 * jnp.array([1.0, 9.0])
        np.testing.assert_allclose(np.exp(u), expected, rtol=0.3)
