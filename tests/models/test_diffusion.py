import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.errors import UserError
from gm_jax.models import diffusion, diffusion_space, path_sampling
from gm_jax.ops import diffusion_process, predictions
from gm_jax.samplers import ddim, ddpm, dpm_solver, ode, sde, time_grids

KEY = jax.random.key(0)
T = 30
SCHEDULE = diffusion_process.linear_schedule(T, beta_min=0.5, beta_max=15.0)
VARIANCES = {"beta": diffusion_process.transition_variance, "beta~": diffusion_process.posterior_variance}


class Fixed(NamedTuple):
    """A network without parameters: fn(x_t, t, label) -> output."""

    fn: Callable

    def init_with_output(self, key, x_t, t, label):
        return self.fn(x_t, t, label), {"params": {}}

    def apply(self, variables, x_t, t, label, train=False, rngs=None):
        return self.fn(x_t, t, label)


def best_noise(m, s, schedule=SCHEDULE):
    """The best eps of data N(m, s^2): sigma_t (x_t - a_t m) / (a_t^2 s^2 + sigma_t^2)."""

    def fn(x_t, t, label):
        a_t, sigma_t = (factor[:, None] for factor in diffusion_process.signal_and_noise(schedule.at(t)))
        return sigma_t * (x_t - a_t * m) / (a_t**2 * s**2 + sigma_t**2)

    return Fixed(fn)


def of_points(network, *, shape=(2,), schedule=SCHEDULE, variance="beta", **settings):
    variance_fn = VARIANCES[variance]
    defaults = {
        "parameterization": diffusion.noise_prediction(),
        "sampler": ddpm.ancestral(schedule, schedule.num_steps, variance_fn=variance_fn),
    }
    return diffusion.Diffusion(
        network=network,
        space=diffusion_space.points(),
        schedule=schedule,
        shape=shape,
        variance_fn=variance_fn,
        **{**defaults, **settings},
    )


def loss_of(model, x, key=KEY, **more):
    return jax.jit(model.model.objectives[0].loss)({"diffusion": {}}, {}, key, {"x": x, **more})[0]


def log_probs(model, x, key=KEY):
    return np.asarray(jax.jit(model.model.log_prob)({"diffusion": {}}, {}, key, x).log_prob, np.float64)


def standard_error(values):
    return values.std() / np.sqrt(len(values))


# Parameterisations.

PARAMETERIZATIONS = {
    "noise": diffusion.noise_prediction,
    "data": diffusion.data_prediction,
    "velocity": diffusion.v_prediction,
}
RNG = np.random.default_rng(0)
X_0, EPS = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2))
FACTORS = diffusion_process.signal_and_noise(jnp.log(jnp.asarray([0.9, 0.5, 0.1, 0.01], jnp.float32)))
X_T = predictions.diffuse(X_0, EPS, *FACTORS)
TARGETS = {"noise": EPS, "data": X_0, "velocity": predictions.v_target(X_0, EPS, *FACTORS)}
each = pytest.mark.parametrize("name", TARGETS)


@each
def test_the_target_has_zero_loss_and_gives_the_pair_back(name):
    made = PARAMETERIZATIONS[name]()
    loss = made.loss(X_0, EPS, TARGETS[name], *FACTORS)
    np.testing.assert_allclose(loss, np.zeros(4), atol=1e-6)
    prediction = made.predict(X_T, TARGETS[name], *FACTORS)
    np.testing.assert_allclose(prediction.x_0, X_0, atol=1e-4)
    np.testing.assert_allclose(prediction.eps, EPS, atol=1e-4)


@each
def test_parameterization_losses_are_squared_errors_of_the_output(name):
    # An output off by d everywhere: 3 d^2.
    loss = PARAMETERIZATIONS[name]().loss(X_0, EPS, TARGETS[name] + 0.5, *FACTORS)
    np.testing.assert_allclose(loss, np.full(4, 0.75), rtol=1e-4)


# Training.


def test_the_optimal_prediction_of_a_gaussian_reaches_its_closed_form():
    m, s = 0.7, 1.8
    x = jnp.asarray(m + s * np.random.default_rng(0).normal(size=(40_000, 2)), jnp.float32)
    alpha_bar = np.exp(SCHEDULE.log_alpha_bar[1:].astype(np.float64))
    left = np.mean(alpha_bar * s**2 / (alpha_bar * s**2 + 1 - alpha_bar))
    np.testing.assert_allclose(loss_of(of_points(best_noise(m, s)), x), left, rtol=0.02)
    for other in (best_noise(m + 1.5, s), best_noise(m, 0.4 * s)):
        assert loss_of(of_points(other), x) > 1.1 * left


def test_predicting_zero_noise_costs_one_per_dimension():
    model = of_points(Fixed(lambda x_t, t, label: jnp.zeros_like(x_t)), shape=(5,))
    np.testing.assert_allclose(loss_of(model, jnp.ones((20_000, 5))), 1.0, rtol=0.02)


def test_all_times_are_trained_equally_and_no_others():
    # The data are 0 and are predicted as 1 at a single time: what is left is that time's share.
    at = lambda time: lambda x_t, t, label: (t == time).astype(x_t.dtype)[:, None] * jnp.ones_like(x_t)  # noqa: E731
    shares = [
        loss_of(of_points(Fixed(at(time)), parameterization=diffusion.data_prediction()), jnp.zeros((30_000, 2)))
        for time in (0, 1, T // 2, T, T + 1)
    ]
    np.testing.assert_allclose(shares, [0.0, 1 / T, 1 / T, 1 / T, 0.0], atol=4 * np.sqrt(1 / T / 30_000))


def test_the_network_gets_train_and_a_dropout_key_in_training_only():
    calls = []

    class Asked(Fixed):
        def apply(self, variables, x_t, t, label, train=False, rngs=None):
            calls.append((train, rngs))
            return self.fn(x_t, t, label)

    model = of_points(Asked(lambda x_t, t, label: jnp.zeros_like(x_t)))
    loss_of(model, jnp.ones((4, 2)))
    log_probs(model, jnp.ones((4, 2)))
    (trains, rngs), *measured = calls
    assert (trains, list(rngs)) == (True, ["dropout"])
    assert measured
    assert all((train, rngs) == (False, None) for train, rngs in measured)


# The bound.


@pytest.mark.parametrize("x_0", [0.0, 1.5])
def test_the_bound_is_tight_if_the_reverse_process_is_exact(x_0):
    # Of N(0, 1) every reverse conditional is the very normal that the model has: its variance is beta.
    found = log_probs(of_points(best_noise(0.0, 1.0)), jnp.full((20_000, 2), x_0))
    np.testing.assert_allclose(found.mean(), 2 * stats.norm.logpdf(x_0), atol=4 * standard_error(found))
    assert standard_error(found) < 0.02


@pytest.mark.slow
def test_the_bound_is_below_log_p_and_near_it_with_many_steps():
    m, s = 0.7, 0.5
    x = jnp.asarray(m + s * np.random.default_rng(1).normal(size=(20_000, 2)), jnp.float32)
    log_p, gaps = stats.norm.logpdf(x, m, s).sum(axis=1), []
    for num_steps in (20, 200):
        schedule = diffusion_process.linear_schedule(num_steps, beta_min=0.5, beta_max=15.0)
        gaps.append(log_p - log_probs(of_points(best_noise(m, s, schedule), schedule=schedule), x))
    means, errors = np.mean(gaps, axis=1), [standard_error(gap) for gap in gaps]
    assert means[0] > 4 * errors[0]
    assert -4 * errors[1] < means[1] < 0.3 * means[0]


def test_a_few_terms_estimate_the_whole_sum():
    model, few = (of_points(best_noise(0.2, 0.6), num_bound_terms=k, variance="beta~") for k in (None, 3))
    x = jnp.full((4_000, 2), 0.5)
    keys = jax.random.split(KEY, 4_000)
    of_each = jax.jit(jax.vmap(lambda key, x: few.model.log_prob({"diffusion": {}}, {}, key, x[None])))(keys, x)
    whole, estimated = log_probs(model, x), np.asarray(of_each.log_prob[:, 0], np.float64)
    assert of_each.settings == (("T", T), ("bound_terms", 3), ("space", "R^2"))
    np.testing.assert_allclose(estimated.mean(), whole.mean(), atol=4 * standard_error(estimated))
    assert standard_error(estimated) < 0.2


def of_pixels(fn, levels=3, schedule=SCHEDULE, **settings):
    return diffusion.Diffusion(
        network=Fixed(fn),
        space=diffusion_space.pixels(levels=levels),
        schedule=schedule,
        shape=(1, 1, 1),
        parameterization=diffusion.data_prediction(),
        sampler=ddim.ddim(schedule, 5),
        variance_fn=VARIANCES["beta~"],
        **settings,
    )


def test_probabilities_of_all_levels_sum_to_at_most_one():
    # A prediction that knows nothing but the average, 0: the bound of each level is below its log-probability.
    model = of_pixels(lambda x_t, t, label: jnp.zeros_like(x_t))
    x = jnp.repeat(jnp.arange(3), 2_000).astype(jnp.uint8).reshape(-1, 1, 1, 1)
    bounds = log_probs(model, x).reshape(3, -1).mean(axis=1)
    assert np.exp(bounds).sum() < 1.0


def test_predictions_out_of_range_are_clipped_before_the_bound():
    x = jnp.full((4, 1, 1, 1), 2, jnp.uint8)
    far, edge = (of_pixels(partial(lambda value, x_t, t, label: jnp.full_like(x_t, value), v)) for v in (50.0, 1.0))
    np.testing.assert_allclose(log_probs(far, x), log_probs(edge, x), rtol=1e-6)


# Sampling.


@pytest.mark.parametrize("variance", VARIANCES)
def test_samples_have_the_moments_of_the_data(variance):
    m, s = np.asarray([0.7, -0.5]), np.asarray([0.4, 1.3])
    schedule = diffusion_process.linear_schedule(200)
    model = of_points(best_noise(jnp.asarray(m)[None], jnp.asarray(s)[None], schedule), schedule=schedule)
    for sampler in (ddpm.ancestral(schedule, 200, variance_fn=VARIANCES[variance]), ddim.ddim(schedule, 100)):
        draw = jax.jit(dataclasses.replace(model, sampler=sampler).sample, static_argnums=3)
        x = np.asarray(draw({"diffusion": {}}, {}, KEY, 20_000))
        np.testing.assert_allclose(x.mean(axis=0), m, atol=0.04)
        np.testing.assert_allclose(x.std(axis=0), s, rtol=0.05)


def test_a_trajectory_ends_in_the_sample_of_the_same_key():
    model = of_pixels(lambda x_t, t, label: 0.3 * x_t)
    args = ({"diffusion": {}}, {}, KEY, 4)
    chain = model.trajectory(*args)
    np.testing.assert_array_equal(model.space.to_data(chain.x_0), model.model.sample(*args))
    assert chain.x_t.shape == (5, 4, 1, 1, 1)


# Labels. A network that answers the label itself, of three classes and none.


def of_labels(**settings):
    answer = lambda x_t, t, label: jnp.broadcast_to(label.astype(x_t.dtype)[:, None], x_t.shape)  # noqa: E731
    return of_points(Fixed(answer), parameterization=diffusion.data_prediction(), num_classes=3, **settings)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_label_is_withheld_for_a_share_of_the_examples(share):
    # Data of 0 and the label 1: the squared error is 1 with the label and 9 with "none".
    x, label = jnp.zeros((20_000, 2)), jnp.ones(20_000, jnp.int32)
    loss = loss_of(of_labels(drop_label=share), x, label=label)
    np.testing.assert_allclose(loss, (1 - share) + 9 * share, atol=0.1)


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 2.0])
def test_guidance_is_equation_4(weight):
    label = jnp.asarray([0, 2])
    predict = of_labels(guidance=weight).predict_fn({"diffusion": {}}, {}, label)
    x_0 = predict(jnp.zeros((2, 2)), jnp.full(2, 5)).x_0
    expected = (1 + weight) * np.asarray([0.0, 2.0]) - weight * 3.0
    np.testing.assert_allclose(x_0, np.broadcast_to(expected[:, None], (2, 2)), rtol=1e-6)


def test_without_a_label_it_is_the_unconditional_model():
    model = of_labels(guidance=2.0, sampler=ddim.ddim(SCHEDULE, 1))
    x = model.sample({"diffusion": {}}, {}, KEY, 2)
    np.testing.assert_allclose(x, np.full((2, 2), 3.0), rtol=1e-5)
    labelled = model.sample({"diffusion": {}}, {}, KEY, 2, label=jnp.asarray([1, 2]))
    np.testing.assert_allclose(labelled[:, 0], [3 * 1 - 2 * 3, 3 * 2 - 2 * 3], rtol=1e-5)
    knows_no_label = Fixed(lambda x_t, t, label: 3.0 + 0.0 * x_t)
    unconditional = of_points(knows_no_label, parameterization=diffusion.data_prediction())
    x = jnp.ones((4, 2))
    np.testing.assert_allclose(log_probs(model, x), log_probs(unconditional, x), rtol=1e-6)


def test_labels_are_refused_or_required():
    with pytest.raises(UserError, match="no labels"):
        of_points(best_noise(0.0, 1.0)).model.sample({"diffusion": {}}, {}, KEY, 2, label=jnp.zeros(2, jnp.int32))
    with pytest.raises(UserError, match="data have none"):
        of_labels().model.objectives[0].loss({"diffusion": {}}, {}, KEY, {"x": jnp.zeros((2, 2))})


def test_predictions_of_images_are_clipped_and_of_points_are_not():
    everywhere_50 = Fixed(lambda x_t, t, label: jnp.full_like(x_t, 50.0))
    for space, largest in ((diffusion_space.pixels(levels=17), 1.0), (diffusion_space.points(), 50.0)):
        model = diffusion.Diffusion(
            network=everywhere_50,
            space=space,
            schedule=SCHEDULE,
            shape=(2, 2, 1),
            parameterization=diffusion.data_prediction(),
            sampler=ddim.ddim(SCHEDULE, 5),
            variance_fn=diffusion_process.transition_variance,
        )
        chain = jax.jit(model.trajectory, static_argnums=3)({"diffusion": {}}, {}, KEY, 3)
        np.testing.assert_allclose(chain.x0_hat, np.full((5, 3, 2, 2, 1), largest), rtol=1e-6)


# Samplers of the continuous path through the schedule.


def best_noise_at_any_time(m, s, path):
    def fn(x_t, t, label):
        a_t, sigma_t = path.signal(t)[:, None], path.noise(t)[:, None]
        return sigma_t * (x_t - a_t * m) / (a_t**2 * s**2 + sigma_t**2)

    return Fixed(fn)


def on_the_path(solve, grid, num_times, *, one_by_one=False):
    def draw(key, predict_fn, path, x_T):
        times = grid(path, num_times)
        return ode.denoise(predict_fn, solve(key, predict_fn, path, x_T, times), times[-1])

    return path_sampling.PathSampler(draw, one_by_one=one_by_one)


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(
            on_the_path(lambda key, *call: dpm_solver.dpm_solver_2m(*call), time_grids.uniform_log_snr, 15), id="dpmpp"
        ),
        pytest.param(on_the_path(lambda key, *call: ode.heun(*call), time_grids.uniform, 40), id="heun"),
        pytest.param(
            on_the_path(lambda key, *call: ode.adaptive(*call), time_grids.uniform, 2, one_by_one=True), id="adaptive"
        ),
        pytest.param(on_the_path(sde.euler_maruyama, time_grids.uniform, 400), id="euler_maruyama"),
    ],
)
def test_a_discrete_model_is_sampled_on_the_path_through_its_schedule(sampler):
    schedule = diffusion_process.linear_schedule(200)
    model = of_points(best_noise_at_any_time(0.7, 0.4, schedule.path()), schedule=schedule, sampler=sampler)
    count = 4000
    found = jax.jit(model.sample, static_argnums=3)({"diffusion": {}}, {}, KEY, count)
    assert found.shape == (count, 2)
    assert abs(float(jnp.mean(found)) - 0.7) < 4 * 0.4 / np.sqrt(2 * count) + 0.01
    assert abs(float(jnp.std(found)) - 0.4) < 4 * 0.4 / np.sqrt(4 * count) + 0.01


def test_a_network_or_data_of_another_shape_are_refused_at_init():
    for fn, returned in ((lambda x, t, label: x[:, :1], r"\[1, 1\]"), (lambda x, t, label: (x, x), r"\[1, 2\] and")):
        with pytest.raises(UserError, match=rf"the network must return \[1, 2\] for one .* returns {returned}"):
            jax.eval_shape(of_points(Fixed(fn)).model.init, KEY, {"x": jnp.zeros((4, 2))})
    with pytest.raises(UserError, match=r"examples of shape \[3\], and the data have \[2\]"):
        jax.eval_shape(of_points(best_noise(0.0, 1.0), shape=(3,)).model.init, KEY, {"x": jnp.zeros((4, 2))})
