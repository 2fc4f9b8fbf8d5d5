"""A learned variance against the two fixed ones, and what its gradient reaches."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.models import diffusion, diffusion_space, learned_variance
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process
from gm_jax.samplers import ddpm

SCHEDULE, KEY = diffusion_process.cosine_schedule(8), jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)


class TwoOutputs(nn.Module):
    """eps = weight x and a constant second output."""

    second: float = 0.0

    @nn.compact
    def __call__(self, x, t, label=None, *, train=False):
        weight = self.param("weight", nn.initializers.constant(0.4), ())
        second = self.param("second", nn.initializers.constant(self.second), ())
        return jnp.concatenate([weight * x, second + jnp.zeros_like(x)], axis=-1)


class FirstOutput(TwoOutputs):
    def __call__(self, x, t, label=None, *, train=False):
        return 0.4 * x


def of(
    network,
    variance_fn=diffusion_process.transition_variance,
    *,
    first=True,
    parameterization=diffusion.noise_prediction(),  # noqa: B008
    **settings,
):
    inner = diffusion.Diffusion(
        network=network,
        space=diffusion_space.points(),
        schedule=SCHEDULE,
        shape=(2,),
        parameterization=learned_variance.of_first_output(parameterization) if first else parameterization,
        sampler=ddpm.ancestral(SCHEDULE, 4, variance_fn=variance_fn),
        variance_fn=variance_fn,
    )
    return learned_variance.LearnedVariance(diffusion=inner, **settings) if first else inner


FIXED = {-1.0: diffusion_process.posterior_variance, 1.0: diffusion_process.transition_variance}


@pytest.mark.parametrize("second", FIXED)
def test_the_ends_of_the_interpolation_are_the_fixed_variances(second):
    model, fixed = of(TwoOutputs(second)), of(FirstOutput(), FIXED[second], first=False)
    params, state = model.init(KEY, {"x": X})
    found = model.log_prob(params, state, KEY, X)
    expected = fixed.log_prob({"diffusion": {}}, {}, KEY, X)
    np.testing.assert_allclose(found.log_prob, expected.log_prob, rtol=1e-5)
    assert (found.kind, found.measure, found.settings) == (expected.kind, expected.measure, expected.settings)


@pytest.mark.parametrize("second", FIXED)
def test_ancestral_steps_have_the_variance_of_the_network(second):
    times = np.array([8, 5, 2])
    model = of(TwoOutputs(second), sampling_times=times)
    params, state = model.init(KEY, {"x": X})
    fixed = of(FirstOutput(), first=False)
    step_fn = ddpm.ancestral(SCHEDULE, 3, variance_fn=FIXED[second]).step_fn
    object.__setattr__(fixed, "sampler", diffusion.samplers.Sampler(step_fn, times))
    np.testing.assert_allclose(
        model.sample(params, state, KEY, 5), fixed.sample({"diffusion": {}}, {}, KEY, 5), rtol=1e-5, atol=1e-6
    )
    other = of(TwoOutputs(-second), sampling_times=times).sample(
        of(TwoOutputs(-second)).init(KEY, {"x": X})[0], {}, KEY, 5
    )
    assert np.abs(other - model.sample(params, state, KEY, 5)).max() > 1e-3


def test_the_bound_reaches_the_variance_alone():
    # A published condition: the gradient of the bound stops at the mean.
    def gradient(bound_weight):
        model = of(TwoOutputs(0.3), bound_weight=bound_weight)
        params, state = model.init(KEY, {"x": X})
        return jax.grad(lambda p: model.loss(p, state, KEY, {"x": X})[0])(params)["diffusion"]

    without, with_bound = gradient(0.0), gradient(0.5)
    assert float(without["second"]) == 0.0
    assert abs(float(with_bound["second"])) > 1e-4
    np.testing.assert_allclose(with_bound["weight"], without["weight"], rtol=1e-6)


def test_the_second_term_of_the_loss_is_the_bound_in_expectation():
    model = of(TwoOutputs(0.3), parameterization=diffusion.data_prediction())
    x = jnp.tile(X[:1], (4000, 1))
    params, state = model.init(KEY, {"x": x})
    keys = jax.random.split(jax.random.key(4), 20)
    terms = np.array(
        [float(jax.jit(model.loss)(params, state, key, {"x": x})[1][1]["bound_terms"]) for key in keys], np.float64
    )
    bound = np.asarray(jax.jit(model.log_prob)(params, state, KEY, x).log_prob, np.float64)
    prior = float(diffusion.losses.prior_kl(X[:1], SCHEDULE.at(8))[0])
    error = np.hypot(terms.std() / np.sqrt(20), bound.std() / np.sqrt(len(bound)))
    assert abs(terms.mean() + prior + bound.mean()) < 4 * error
    assert error < 0.1


def test_times_are_drawn_by_the_size_of_their_terms_and_weighed_back():
    model, count = of(TwoOutputs(), loss_aware=True), 40_000
    params, state = model.init(KEY, {"x": X})
    np.testing.assert_array_equal(state["times"]["square"], np.ones(8))
    square = jnp.arange(1.0, 9.0) ** 4
    t, weight = model.draw_times({"times": {"square": square}}, KEY, count)
    root = np.array([0, 4, 9, 16, 25, 36, 49, 64])  # the term of t = 1 trains nothing
    p = 0.9 * root / np.sum(root) + 0.1 / 8
    counts = np.bincount(t, minlength=9)[1:]
    assert stats.chisquare(counts, count * p).pvalue > 1e-4
    np.testing.assert_allclose(weight, 1 / (8 * p[np.asarray(t) - 1]), rtol=1e-5)
    # The state of times that were drawn moves towards their terms, and that of others stays.
    _, (after, _) = model.loss(params, state, jax.random.key(3), {"x": X[:2]})
    drawn = model.draw_times(state, jax.random.split(jax.random.key(3), 3)[0], 2)[0]
    moved = np.flatnonzero(np.asarray(after["times"]["square"]) != 1.0) + 1
    assert set(moved) == set(np.asarray(drawn).tolist())


def test_loss_aware_times_leave_the_mean_loss_and_its_gradient():
    def of_keys(loss_aware):
        settings = {"bound_weight": 0.5, "parameterization": diffusion.data_prediction()}
        model = of(TwoOutputs(0.3), loss_aware=loss_aware, **settings)
        x = jnp.tile(X[:1], (1000, 1))
        params, state = model.init(KEY, {"x": x})
        if loss_aware:
            state = {"times": {"square": jnp.arange(1.0, 9.0) ** 2}}
        step = jax.jit(jax.value_and_grad(lambda p, key: model.loss(p, state, key, {"x": x})[0]))
        found = [step(params, key) for key in jax.random.split(jax.random.key(2), 40)]
        return np.array([[value, *jax.tree.leaves(grads)] for value, grads in found], np.float64)

    aware, uniform = of_keys(True), of_keys(False)
    error = np.hypot(aware.std(axis=0), uniform.std(axis=0)) / np.sqrt(40)
    assert (np.abs(aware.mean(axis=0) - uniform.mean(axis=0)) < 4 * error).all()
    assert (error < 0.2 * np.abs(uniform.mean(axis=0))).all()


def test_the_loss_is_the_simple_one_and_a_share_of_the_bound_of_each_dimension():
    def parts(bound_weight):
        model = of(TwoOutputs(0.3), bound_weight=bound_weight)
        params, state = model.init(KEY, {"x": X})
        value, (_, metrics) = model.loss(params, state, jax.random.key(3), {"x": X})
        return float(value), float(metrics["bound_terms"])

    (simple, _), (value, total) = parts(0.0), parts(0.7)
    np.testing.assert_allclose(value, simple + 0.7 * total / 2, rtol=1e-5)


def test_the_running_mean_moves_by_a_tenth_for_each_drawn_time():
    model = of(TwoOutputs(), loss_aware=True)
    term = jnp.array([1.0, 3.0, 5.0])
    after = model._after({"times": {"square": jnp.ones(8)}}, jnp.array([4, 4, 7]), term)["times"]["square"]
    expected = np.ones(8)
    expected[3] = 0.9**2 * 1.0 + (1 - 0.9**2) * (1.0 + 9.0) / 2
    expected[6] = 0.9 * 1.0 + 0.1 * 25.0
    np.testing.assert_allclose(after, expected, rtol=1e-6)


def test_a_network_has_twice_the_outputs_for_images_and_points():
    network = DiffusionMLP(8, 1, outputs=2)
    x = jnp.ones((3, 4, 4, 1))
    found = network.apply(network.init(KEY, x, jnp.ones(3)), x, jnp.ones(3))
    assert found.shape == (3, 4, 4, 2)
    np.testing.assert_array_equal(learned_variance.share_of(found), 0.5 * np.ones((3, 4, 4, 1)))


class ByLabel(nn.Module):
    """Both outputs depend on the label, of three and none."""

    @nn.compact
    def __call__(self, x, t, label=None, *, train=False):
        shift = self.param("shift", nn.initializers.constant(0.0), (4, 2))[label]
        return jnp.concatenate([0.4 * x + shift[:, :1], shift[:, 1:] + jnp.zeros_like(x)], axis=-1)


@pytest.mark.parametrize("weight", [0.0, 4.0])
def test_guidance_moves_the_mean_and_leaves_the_variance_of_the_conditional_model(weight):
    model = of(ByLabel())
    inner = dataclasses.replace(model.diffusion, num_classes=3, guidance=weight)
    model = dataclasses.replace(model, diffusion=inner)
    shift = jnp.array([[0.1, 0.3], [0.2, -0.5], [0.0, 0.7], [-0.3, -0.9]])
    params = {"diffusion": {"shift": shift}}
    t, label = jnp.full(6, 5), jnp.array([0, 1, 2, 0, 1, 2])
    x_0, v = model.reverse(params, X, t, label)
    eps = 0.4 * X + ((1 + weight) * shift[label, :1] - weight * shift[3:, :1])
    np.testing.assert_allclose(x_0, (X - SCHEDULE.noise(5) * eps) / SCHEDULE.signal(5), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(v, jnp.broadcast_to(0.5 * (shift[label, 1:] + 1), X.shape), rtol=1e-6)
