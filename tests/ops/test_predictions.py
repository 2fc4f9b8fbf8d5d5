from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, distributions, predictions

RNG = np.random.default_rng(0)
T = 50
SCHEDULES = {"linear": diffusion_process.linear_schedule, "cosine": diffusion_process.cosine_schedule}
each_schedule = pytest.mark.parametrize("make_schedule", SCHEDULES.values(), ids=SCHEDULES)
factors = diffusion_process.signal_and_noise
CONVERSIONS = {
    "x0": predictions.prediction_from_x0,
    "eps": predictions.prediction_from_eps,
    "v": predictions.prediction_from_v,
    "score": predictions.prediction_from_score,
}


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def test_diffused_data_are_signal_plus_noise_with_their_variances():
    x_0, eps, alpha_bar = normal(3, 2), normal(3, 2), np.array([1.0, 0.36, 0.0])
    x_t = predictions.diffuse(x_0, eps, *factors(jnp.asarray([0.0, np.log(0.36), -np.inf])))
    for b in range(3):
        expected = np.sqrt(alpha_bar[b]) * x_0[b] + np.sqrt(1 - alpha_bar[b]) * eps[b]
        np.testing.assert_allclose(x_t[b], expected, rtol=1e-6)


@each_schedule
@pytest.mark.parametrize("kind", CONVERSIONS)
def test_the_true_pair_is_recovered_from_any_part(make_schedule, kind, x64):
    schedule = make_schedule(T, dtype=np.float64)
    t = jnp.arange(1, T)
    x_0, eps = normal(T - 1, 2), normal(T - 1, 2)
    x_t = predictions.diffuse(x_0, eps, *factors(schedule.at(t)))
    part = {
        "x0": x_0,
        "eps": eps,
        "v": predictions.v_target(x_0, eps, *factors(schedule.at(t))),
        "score": predictions.score(eps, factors(schedule.at(t))[1]),
    }[kind]
    prediction = CONVERSIONS[kind](x_t, part, *factors(schedule.at(t)))
    np.testing.assert_allclose(prediction.x_0, x_0, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(prediction.eps, eps, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_a_wrong_prediction_still_makes_up_x_t_and_all_its_forms(kind, x64):
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    log_alpha_bar_t = schedule.at(jnp.array([1, 20, T]))
    x_t, said = normal(3, 2), normal(3, 2)
    prediction = CONVERSIONS[kind](x_t, said, *factors(log_alpha_bar_t))
    np.testing.assert_allclose(predictions.diffuse(*prediction, *factors(log_alpha_bar_t)), x_t, rtol=1e-12, atol=1e-12)
    forms = {
        "x0": prediction.x_0,
        "eps": prediction.eps,
        "v": predictions.v_target(*prediction, *factors(log_alpha_bar_t)),
        "score": predictions.score(prediction.eps, factors(log_alpha_bar_t)[1]),
    }
    np.testing.assert_allclose(forms[kind], said, rtol=1e-10, atol=1e-10)
    for other, form in forms.items():
        again = CONVERSIONS[other](x_t, form, *factors(log_alpha_bar_t))
        np.testing.assert_allclose(again, prediction, rtol=1e-9, atol=1e-9)


def test_the_score_is_the_gradient_of_the_marginal_log_density(x64):
    x_0, eps, log_alpha_bar_t = normal(4, 2), normal(4, 2), -jnp.exp(normal(4))
    a_t, sigma_t = (factor[:, None] for factor in factors(log_alpha_bar_t))
    x_t = predictions.diffuse(x_0, eps, *factors(log_alpha_bar_t))
    log_var = jnp.broadcast_to(2 * jnp.log(sigma_t), x_t.shape)
    gradient = jax.grad(lambda x_t: distributions.normal_log_prob(x_t, a_t * x_0, log_var).sum())(x_t)
    np.testing.assert_allclose(predictions.score(eps, factors(log_alpha_bar_t)[1]), gradient, rtol=1e-10)


def test_v_is_the_derivative_along_the_arc_from_data_to_noise(x64):
    x_0, eps, angle = normal(4, 2), normal(4, 2), jnp.asarray(RNG.uniform(0.1, 1.4, size=4))
    x_of = lambda angle: predictions.diffuse(x_0, eps, *factors(2 * jnp.log(jnp.cos(angle))))  # noqa: E731
    _, derivative = jax.jvp(x_of, (angle,), (jnp.ones(4),))
    v = predictions.v_target(x_0, eps, *factors(2 * jnp.log(jnp.cos(angle))))
    np.testing.assert_allclose(v, derivative, rtol=1e-10)


def test_the_snr_is_the_ratio_of_the_variances(x64):
    alpha_bar = np.array([1e-9, 0.2, 0.999999])
    expected = np.log(alpha_bar / (1 - alpha_bar))
    np.testing.assert_allclose(predictions.log_snr(*factors(jnp.log(alpha_bar))), expected, rtol=1e-9)


# Extremes.


@pytest.mark.parametrize("kind", CONVERSIONS)
@pytest.mark.parametrize("log_alpha_bar", [0.0, -1e-9, -60.0, -np.inf])
def test_a_conversion_is_finite_without_noise_and_without_signal(kind, log_alpha_bar):
    x_t, said = jnp.full((1, 1), 1.5), jnp.full((1, 1), -0.5)
    prediction, vjp_fn = jax.vjp(lambda *a: CONVERSIONS[kind](*a, *factors(jnp.float32(log_alpha_bar))), x_t, said)
    assert np.all(np.isfinite(prediction))
    assert np.all(np.isfinite(vjp_fn(prediction)))
    assert np.isfinite(predictions.score(said, factors(jnp.float32(log_alpha_bar))[1]))


def test_v_determines_x_0_without_signal_and_eps_without_noise():
    x_t, v = normal(2, 3), normal(2, 3)
    prediction = predictions.prediction_from_v(x_t, v, *factors(jnp.array([0.0, -np.inf])))
    np.testing.assert_array_equal(prediction.x_0, [x_t[0], -v[1]])
    np.testing.assert_array_equal(prediction.eps, [v[0], x_t[1]])


def test_without_noise_the_true_x_0_gives_eps_0():
    x_0 = normal(2, 3)
    np.testing.assert_array_equal(predictions.prediction_from_x0(x_0, x_0, *factors(jnp.float32(0.0))).eps, 0 * x_0)


def test_the_snr_is_infinite_only_at_time_0():
    for make_schedule in SCHEDULES.values():
        log_snr = predictions.log_snr(*factors(jnp.asarray(make_schedule(T).log_alpha_bar)))
        assert log_snr[0] == np.inf
        assert np.all(np.isfinite(log_snr[1:]))


# Shapes.

A_T, S_T = factors(jnp.float32([-0.2, -3.0, -0.1]))
SHAPE = (3, 2, 2, 1)
ARRAYS = [jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(2)]
CASES = {
    "diffuse": (predictions.diffuse, (*ARRAYS, A_T, S_T)),
    "v_target": (predictions.v_target, (*ARRAYS, A_T, S_T)),
    "score": (predictions.score, (ARRAYS[0], S_T)),
    **{name: (function, (*ARRAYS, A_T, S_T)) for name, function in CONVERSIONS.items()},
}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_jit_vmap_and_scalar_factors_agree_with_factors_per_example(name):
    function, arguments = CASES[name]
    plain = function(*arguments)
    close = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6))
    assert {leaf.shape for leaf in jax.tree.leaves(plain)} == {SHAPE}
    close(jax.jit(function)(*arguments), plain)
    close(jax.vmap(function)(*arguments), plain)
    one_time = [a if a.ndim > 1 else a[1] for a in arguments]
    close(jax.tree.map(lambda leaf: leaf[1], function(*one_time)), jax.tree.map(lambda leaf: leaf[1], plain))


@each_case
def test_factors_of_another_batch_are_refused(name):
    function, arguments = CASES[name]
    for place, factor in enumerate(arguments):
        for wrong in (factor[:2], factor[:, None], factor.astype(jnp.int32)) if factor.ndim == 1 else ():
            with pytest.raises(AssertionError):
                function(*arguments[:place], wrong, *arguments[place + 1 :])


@each_case
def test_data_of_other_shapes_and_raw_images_are_refused(name):
    function, (x, *rest) = CASES[name]
    wrong = [x.astype(jnp.uint8)]
    if rest[0].ndim == x.ndim:
        wrong += [x[:1], x[..., 0]]
    for array in wrong:
        with pytest.raises(AssertionError):
            function(array, *rest)


def test_per_example_shapes_a_batch_and_keeps_full_shapes_and_scalars():
    np.testing.assert_array_equal(predictions.per_example(ARRAYS[0], ARRAYS[1]), ARRAYS[0])
    assert predictions.per_example(A_T, ARRAYS[0]).shape == (3, 1, 1, 1)
    assert predictions.per_example(2.0, ARRAYS[0]).shape == ()


# The preconditioning of EDM.


def test_data_and_noise_are_recovered_from_the_preconditioned_target(x64):
    a_t, s_t = jnp.array([1.0, 1.0, 0.3, 0.0]), jnp.array([0.002, 80.0, 0.8, 1.0])
    x_0, eps = normal(4, 2), normal(4, 2)
    x_t = predictions.diffuse(x_0, eps, a_t, s_t)
    target = predictions.preconditioned_target(x_0, eps, a_t, s_t, sigma_data=0.5)
    pair = predictions.prediction_from_preconditioned(x_t, target, a_t, s_t, sigma_data=0.5)
    np.testing.assert_allclose(pair.x_0, x_0, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(pair.eps, eps, rtol=1e-8, atol=1e-8)


def test_the_preconditioning_is_the_papers(x64):
    # Karras et al., table 1: D = c_skip x + c_out F with sigma_data = 0.5.
    sigma, x_t, output = jnp.array([0.01, 0.7, 60.0]), normal(3, 2), normal(3, 2)
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / jnp.sqrt(sigma**2 + 0.25)
    pair = predictions.prediction_from_preconditioned(x_t, output, jnp.ones(3), sigma, sigma_data=0.5)
    np.testing.assert_allclose(pair.x_0, c_skip[:, None] * x_t + c_out[:, None] * output, rtol=1e-12)
    np.testing.assert_allclose(pair.eps, (x_t - pair.x_0) / sigma[:, None], rtol=1e-9, atol=1e-9)


def test_without_an_output_the_prediction_is_the_posterior_mean_of_normal_data(x64):
    a_t, s_t, c = jnp.array([0.9, 0.2]), jnp.array([0.3, 5.0]), 0.5
    x_t = normal(2, 3)
    pair = predictions.prediction_from_preconditioned(x_t, jnp.zeros_like(x_t), a_t, s_t, sigma_data=c)
    mean = (a_t * c**2 / (a_t**2 * c**2 + s_t**2))[:, None] * x_t
    np.testing.assert_allclose(pair.x_0, mean, rtol=1e-12)


def test_with_unit_data_on_a_preserving_path_the_target_is_minus_v(x64):
    x_0, eps, a_t = normal(3, 2), normal(3, 2), jnp.array([0.1, 0.6, 0.99])
    s_t = jnp.sqrt(1 - a_t**2)
    target = predictions.preconditioned_target(x_0, eps, a_t, s_t, sigma_data=1.0)
    np.testing.assert_allclose(target, -predictions.v_target(x_0, eps, a_t, s_t), rtol=1e-12, atol=1e-12)
