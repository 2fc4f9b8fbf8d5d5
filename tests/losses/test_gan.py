import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.losses import gan

RNG = np.random.default_rng(0)
B = 6
PAIRS = {  # losses of the discriminator or the critic
    "minimax_value": gan.minimax_value,
    "discriminator_loss": gan.discriminator_loss,
    "smoothed": functools.partial(gan.discriminator_loss, real_target=0.9, fake_target=0.2),
    "hinge": gan.hinge_discriminator_loss,
    "least_squares": functools.partial(gan.least_squares_discriminator_loss, real_target=0.7, fake_target=-0.4),
    "wasserstein": gan.wasserstein_critic_loss,
}
GENERATORS = {
    "saturating": gan.saturating_generator_loss,
    "non_saturating": gan.non_saturating_generator_loss,
    "hinge": gan.hinge_generator_loss,
    "least_squares": functools.partial(gan.least_squares_generator_loss, target=0.7),
    "wasserstein": gan.wasserstein_generator_loss,
}
each_pair = pytest.mark.parametrize("loss_fn", PAIRS.values(), ids=PAIRS.keys())
each_generator = pytest.mark.parametrize("loss_fn", GENERATORS.values(), ids=GENERATORS.keys())


def floats(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape), jnp.float32)


# The losses: closed forms.

LOGITS = np.array([-20.0, -10.0, 0.0, 2.0, 20.0])
SIGMOID = special.expit(LOGITS)
LOG_D, LOG_NOT_D = special.log_expit(LOGITS), special.log_expit(-LOGITS)

# name: values and gradients at LOGITS, float64.
GENERATOR_FORMS = {
    "saturating": (LOG_NOT_D, -SIGMOID),
    "non_saturating": (-LOG_D, SIGMOID - 1),
    "hinge": (-LOGITS, np.full(5, -1.0)),
    "least_squares": (0.5 * (LOGITS - 0.7) ** 2, LOGITS - 0.7),
    "wasserstein": (-LOGITS, np.full(5, -1.0)),
}
# name: value of the part of data, its gradient, value of the generated part, its gradient.
PAIR_FORMS = {
    "minimax_value": (LOG_D, 1 - SIGMOID, LOG_NOT_D, -SIGMOID),
    "discriminator_loss": (-LOG_D, SIGMOID - 1, -LOG_NOT_D, SIGMOID),
    "smoothed": (
        -0.9 * LOG_D - 0.1 * LOG_NOT_D,
        SIGMOID - 0.9,
        -0.2 * LOG_D - 0.8 * LOG_NOT_D,
        SIGMOID - 0.2,
    ),
    "hinge": (
        np.array([21.0, 11.0, 1.0, 0.0, 0.0]),
        np.array([-1.0, -1.0, -1.0, 0.0, 0.0]),
        np.array([0.0, 0.0, 1.0, 3.0, 21.0]),
        np.array([0.0, 0.0, 1.0, 1.0, 1.0]),
    ),
    "least_squares": (0.5 * (LOGITS - 0.7) ** 2, LOGITS - 0.7, 0.5 * (LOGITS + 0.4) ** 2, LOGITS + 0.4),
    "wasserstein": (-LOGITS, np.full(5, -1.0), LOGITS, np.full(5, 1.0)),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_losses_and_gradients_are_the_closed_forms(name):
    value, gradient = GENERATOR_FORMS[name]
    logits = jnp.asarray(LOGITS, jnp.float32)
    np.testing.assert_allclose(GENERATORS[name](logits), value, rtol=1e-6, atol=1e-9)
    # A relative tolerance: the gradient -2.06e-9 of the saturating loss at -20 must not pass as 0.
    measured = jax.grad(lambda logits: GENERATORS[name](logits).sum())(logits)
    np.testing.assert_allclose(measured, gradient, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("name", PAIRS)
def test_discriminator_losses_and_gradients_are_the_closed_forms(name):
    real_value, real_gradient, fake_value, fake_gradient = PAIR_FORMS[name]
    real = jnp.asarray(LOGITS, jnp.float32)
    order = np.array([3, 0, 4, 1, 2])  # data and generated examples at different logits
    value = PAIRS[name](real, real[order])
    np.testing.assert_allclose(value, real_value + fake_value[order], rtol=1e-6, atol=1e-9)
    measured = jax.grad(lambda *logits: PAIRS[name](*logits).sum(), argnums=(0, 1))(real, real[order])
    np.testing.assert_allclose(measured[0], real_gradient, rtol=2e-6, atol=1e-15)
    np.testing.assert_allclose(measured[1], fake_gradient[order], rtol=2e-6, atol=1e-15)


def test_saturating_and_non_saturating_gradients_are_the_known_numbers():
    logits = jnp.array([-20.0, -10.0, 0.0, 2.0])
    saturating = jax.grad(lambda logits: gan.saturating_generator_loss(logits).sum())(logits)
    np.testing.assert_allclose(saturating, [-2.0611537e-9, -4.5397869e-5, -0.5, -0.88079708], rtol=1e-6)
    non_saturating = jax.grad(lambda logits: gan.non_saturating_generator_loss(logits).sum())(logits)
    np.testing.assert_allclose(non_saturating, [-1.0, -0.99995460, -0.5, -0.11920292], rtol=1e-6)


def test_saturating_and_non_saturating_losses_differ_at_logit_one():
    logit = jnp.ones(1)
    np.testing.assert_allclose(gan.saturating_generator_loss(logit), [-1.3132617], rtol=1e-6)
    np.testing.assert_allclose(gan.non_saturating_generator_loss(logit), [0.31326169], rtol=1e-6)


# The losses: identities.


def test_the_discriminator_loss_is_minus_the_value_bit_for_bit():
    real, fake = floats(B, scale=5.0), floats(B, scale=5.0)
    np.testing.assert_array_equal(gan.discriminator_loss(real, fake), -gan.minimax_value(real, fake))


def test_the_saturating_loss_has_the_gradient_of_the_value():
    real, fake = floats(B), floats(B)
    value, loss = (
        jax.grad(lambda fake, f=f: f(fake).sum())(fake)
        for f in (lambda fake: gan.minimax_value(real, fake), gan.saturating_generator_loss)
    )
    np.testing.assert_array_equal(value, loss)


def test_smoothing_is_the_expected_loss_under_flipped_labels(x64):
    # With probability 1 - a data are labelled as generated; with probability b generated examples as data.
    real, fake = jnp.asarray(RNG.normal(size=B)), jnp.asarray(RNG.normal(size=B))
    a, b = 0.9, 0.15
    called_real = lambda logits: -special.log_expit(np.asarray(logits))  # noqa: E731
    called_fake = lambda logits: -special.log_expit(-np.asarray(logits))  # noqa: E731
    expected = a * called_real(real) + (1 - a) * called_fake(real) + b * called_real(fake) + (1 - b) * called_fake(fake)
    loss = gan.discriminator_loss(real, fake, real_target=a, fake_target=b)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)


# Feature matching.


def test_feature_matching_is_the_squared_distance_of_the_means():
    real, fake = floats(B, 3, 2), floats(B + 2, 3, 2)
    expected = np.sum((np.mean(np.asarray(real), axis=0) - np.mean(np.asarray(fake), axis=0)) ** 2)
    loss = gan.feature_matching_loss(real, fake)
    assert loss.shape == ()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_feature_matching_is_zero_if_the_means_agree_but_variances_differ():
    real = jnp.array([[1.0, -2.0], [3.0, 2.0]])  # means 2, 0
    fake = jnp.array([[-6.0, 0.5], [10.0, -0.5]])
    loss, gradient = jax.value_and_grad(gan.feature_matching_loss, argnums=1)(real, fake)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros((2, 2)))
    assert float(jnp.sum(jnp.mean(jnp.square(real - fake), axis=0))) > 1  # the loss of pairs is not


def test_feature_matching_ignores_the_order_of_a_batch():
    real, fake = floats(B, 3), floats(B, 3)
    np.testing.assert_allclose(
        gan.feature_matching_loss(real, fake), gan.feature_matching_loss(real[::-1], fake), rtol=1e-5
    )


def test_feature_matching_over_a_mapped_axis_is_that_of_the_whole_batch():
    real, theta = floats(8, 3), floats(3)
    noise = floats(8, 3)

    def loss(theta, real, noise, axis_name=None):
        return gan.feature_matching_loss(real, jnp.tanh(noise * theta[None]), axis_name=axis_name)

    def per_device(real, noise):  # as the train step averages
        value, gradient = jax.value_and_grad(loss)(theta, real, noise, "batch")
        return jax.lax.pmean((value, gradient), "batch")

    parts = real.reshape(4, 2, 3), noise.reshape(4, 2, 3)
    value, gradient = jax.vmap(per_device, axis_name="batch", out_axes=None)(*parts)
    whole_value, whole_gradient = jax.value_and_grad(loss)(theta, real, noise)
    np.testing.assert_allclose(value, whole_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, whole_gradient, rtol=1e-4, atol=1e-6)
    local = jax.vmap(functools.partial(loss, theta))(*parts).mean()
    assert float(local) > float(whole_value) * 1.05  # matching each part's means is another loss


@pytest.mark.parametrize(("real", "fake"), [((B,), (B,)), ((B, 3), (B, 1)), ((B, 3), (3,)), ((B, 2, 3), (B, 3))])
def test_features_of_different_shapes_are_refused(real, fake):
    with pytest.raises(AssertionError):
        gan.feature_matching_loss(floats(*real), floats(*fake))


# Historical averaging.


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return {"dense": {"kernel": jnp.asarray(rng.normal(size=(3, 2))), "bias": jnp.asarray(rng.normal(size=2))}}


def test_historical_averaging_is_the_squared_distance_and_its_gradient(x64):
    theta, mean, weight = parameters(0), parameters(1), 0.3
    leaves = zip(jax.tree.leaves(theta), jax.tree.leaves(mean), strict=True)
    expected = sum(np.sum((np.asarray(t) - np.asarray(m)) ** 2) for t, m in leaves)
    penalty = lambda theta, mean: weight * gan.historical_averaging_penalty(theta, mean)  # noqa: E731
    np.testing.assert_allclose(penalty(theta, mean), weight * expected, rtol=1e-14)
    gradients, of_mean = jax.grad(penalty, argnums=(0, 1))(theta, mean)
    for gradient, t, m in zip(*map(jax.tree.leaves, (gradients, theta, mean)), strict=True):
        np.testing.assert_allclose(gradient, 2 * weight * (t - m), rtol=1e-14)
    assert not any(map(np.any, jax.tree.leaves(of_mean)))
    assert float(gan.historical_averaging_penalty(theta, theta)) == 0.0


def test_the_running_mean_is_the_explicit_mean(x64):
    history = [parameters(seed) for seed in range(7)]
    mean = jax.tree.map(jnp.zeros_like, history[0])
    update = jax.jit(gan.update_historical_mean)
    for count, theta in enumerate(history):
        mean = update(mean, theta, jnp.int32(count))
        explicit = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *history[: count + 1])
        for one, other in zip(jax.tree.leaves(mean), jax.tree.leaves(explicit), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_constant_parameters_have_penalty_zero_in_float32():
    theta = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), parameters())
    mean = jax.tree.map(jnp.zeros_like, theta)
    for count in range(50):
        mean = gan.update_historical_mean(mean, theta, jnp.int32(count))
    assert float(gan.historical_averaging_penalty(theta, mean)) == 0.0
    assert {leaf.dtype for leaf in jax.tree.leaves(mean)} == {jnp.dtype(jnp.float32)}


def test_no_gradient_passes_through_a_mean_that_includes_the_parameters():
    # The penalty against a mean in which theta has just been counted pulls as if the mean were a constant.
    theta, past = parameters(0), parameters(1)

    def loss(theta):
        mean = gan.update_historical_mean(past, theta, jnp.int32(3))
        return gan.historical_averaging_penalty(theta, mean), mean

    gradients, mean = jax.grad(loss, has_aux=True)(theta)
    for gradient, t, m in zip(*map(jax.tree.leaves, (gradients, theta, mean)), strict=True):
        np.testing.assert_allclose(gradient, 2 * (t - m), rtol=1e-5)


def test_different_trees_are_refused():
    theta = parameters()
    others = (
        {"dense": {"kernel": theta["dense"]["kernel"]}},
        {"dense": {**theta["dense"], "bias": jnp.zeros((2, 1))}},
        jax.tree.map(lambda leaf: leaf.astype(jnp.int32), theta),
    )
    for other in others:
        with pytest.raises(AssertionError):
            gan.historical_averaging_penalty(theta, other)
        with pytest.raises(AssertionError):
            gan.update_historical_mean(other, theta, jnp.int32(1))
    with pytest.raises(AssertionError):
        gan.historical_averaging_penalty(others[2], others[2])
    with pytest.raises(AssertionError):
        gan.update_historical_mean(theta, theta, jnp.ones(1, jnp.int32))


# Extremes and shape contract of the losses on logits.


@each_pair
@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_discriminator_losses_are_finite_at_extreme_logits(loss_fn, logit):
    logits = jnp.full(B, logit)
    for fake in (logits, -logits):
        value, gradients = jax.value_and_grad(lambda *args: loss_fn(*args).sum(), argnums=(0, 1))(logits, fake)
        assert np.isfinite(value)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


@each_generator
@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_generator_losses_are_finite_at_extreme_logits(loss_fn, logit):
    value, gradient = jax.value_and_grad(lambda logits: loss_fn(logits).sum())(jnp.full(B, logit))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@each_pair
def test_discriminator_losses_are_float32_and_agree_under_jit_and_vmap(loss_fn):
    real, fake = floats(3, B), floats(3, B)
    plain = jnp.stack([loss_fn(*pair) for pair in zip(real, fake, strict=True)])
    assert (plain.shape, plain.dtype) == ((3, B), jnp.float32)
    np.testing.assert_allclose(jax.jit(jax.vmap(loss_fn))(real, fake), plain, rtol=1e-6, atol=1e-6)


@each_generator
def test_generator_losses_are_float32_and_agree_under_jit_and_vmap(loss_fn):
    fake = floats(3, B)
    plain = jnp.stack([loss_fn(logits) for logits in fake])
    assert (plain.shape, plain.dtype) == ((3, B), jnp.float32)
    np.testing.assert_allclose(jax.jit(jax.vmap(loss_fn))(fake), plain, rtol=1e-6, atol=1e-6)


@each_pair
@pytest.mark.parametrize(("real", "fake"), [((), ()), ((B, 1), (B, 1)), ((B,), (1,)), ((1,), (B,)), ((B,), (B, 1))])
def test_discriminator_losses_refuse_wrong_shapes(loss_fn, real, fake):
    with pytest.raises(AssertionError):
        loss_fn(floats(*real), floats(*fake))


@each_pair
def test_discriminator_losses_refuse_integers(loss_fn):
    with pytest.raises(AssertionError):
        loss_fn(jnp.ones(B, jnp.int32), jnp.ones(B, jnp.int32))


@each_generator
def test_generator_losses_refuse_wrong_shapes_and_dtypes(loss_fn):
    for logits in (jnp.ones(()), jnp.ones((B, 1)), jnp.ones(B, jnp.int32)):
        with pytest.raises(AssertionError):
            loss_fn(logits)
