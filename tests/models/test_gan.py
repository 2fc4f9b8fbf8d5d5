"""Holds both players' losses, updates and model state, and the density of the samples, to written-out oracles."""

import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax.errors import UserError
from gm_jax.evaluation import kde
from gm_jax.models import adversarial_objectives, gan
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination
from gm_jax.networks.normalization import BatchNorm, WithReferenceBatch
from gm_jax.training import parallel, state, step

BATCH, LATENT = 16, 3
KERNELS = gan.Kernels(kde.likelihood, partial(kde.choose_bandwidth, grid=jnp.geomspace(0.01, 10.0, 30)), 50)


def points(seed=0, count=BATCH):
    return np.random.default_rng(seed).normal(2.0, 1.0, (count, 2)).astype(np.float32)


def make(losses=None, *, generator=None, discriminator=None, **settings):
    return gan.GAN(
        generator=generator or MLPGenerator((8,), (2,)),
        discriminator=discriminator or MLPDiscriminator((8,)),
        losses=losses or adversarial_objectives.non_saturating(),
        scaling=gan.points(),
        latent_dim=LATENT,
        **settings,
    )


def optimizers():
    return {player: optax.adam(1e-2) for player in (gan.GENERATOR, gan.DISCRIMINATOR)}


def begin(model):
    return state.create(model.model, optimizers(), jax.random.key(0), {"x": points()})


def loss_of(model, index):
    """Returns (params, model_state, key) -> one player's loss on the first batch, with its state and metrics."""
    loss = model.model.objectives[index].loss
    return jax.jit(lambda params, model_state, key: loss(params, model_state, key, {"x": points()}))


def advance(model, current, count):
    """Returns the state after each of `count` steps, and the last metrics."""
    train_step, states = jax.jit(step.make_train_step(model.model, optimizers(), seed=3)), []
    for index in range(count):
        current, metrics = train_step(current, {"x": points(index)})
        states.append(current)
    return states, metrics


def test_losses_equal_their_formulas_on_the_logits_of_the_networks():
    model = make(
        adversarial_objectives.least_squares(), penalties={"r1": adversarial_objectives.r1_penalty(weight=3.0)}
    )
    now, key = begin(model), jax.random.key(5)
    loss, (_, metrics) = loss_of(model, 0)(now.params, now.model_state, key)
    z_key, _ = jax.random.split(key)
    networks = MLPGenerator((8,), (2,)), MLPDiscriminator((8,))

    def fake(key):
        z = jax.random.normal(key, (BATCH, LATENT))
        return networks[0].apply({"params": now.params["generator"]}, z, train=True)

    def logits(x):
        return networks[1].apply({"params": now.params["discriminator"]}, x, train=True)[0]

    gradients = jax.vmap(jax.grad(lambda x: logits(x[None])[0]))(jnp.asarray(points()))
    r1 = 3.0 * 0.5 * np.mean(np.sum(np.square(gradients), axis=1))
    real, generated = np.asarray(logits(points())), np.asarray(logits(fake(z_key)))
    expected = np.mean(0.5 * (real - 1) ** 2 + 0.5 * generated**2) + r1
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["r1"], r1, rtol=1e-5)
    np.testing.assert_allclose([metrics["D_real"], metrics["D_fake"]], [real.mean(), generated.mean()], rtol=1e-5)
    loss, _ = loss_of(model, 1)(now.params, now.model_state, key)
    np.testing.assert_allclose(loss, np.mean(0.5 * (logits(fake(key)) - 1) ** 2), rtol=1e-5)


def test_each_player_follows_its_own_loss_and_the_discriminator_is_first():
    model = make(adversarial_objectives.hinge())
    now = begin(model)
    states, metrics = advance(model, now, 1)
    assert set(metrics) == {
        *(f"discriminator/{name}" for name in ("loss", "grad_norm", "D_real", "D_fake")),
        *(f"generator/{name}" for name in ("loss", "grad_norm", "D_fake")),
    }
    # The generator's loss against the updated discriminator, and against the old one.
    key = jax.random.fold_in(step.step_key(3, jnp.zeros((), jnp.int32)), 1)
    moved = {**now.params, "discriminator": states[0].params["discriminator"]}
    loss = loss_of(model, 1)
    after, before = (float(loss(params, now.model_state, key)[0]) for params in (moved, now.params))
    np.testing.assert_allclose(metrics["generator/loss"], after, rtol=1e-5)
    assert abs(after - before) > 1e-4


@pytest.mark.slow
def test_the_generator_rests_while_the_critic_takes_more_steps():
    model = make(adversarial_objectives.wasserstein(), generator_every=3)
    states, _ = advance(model, begin(model), 4)
    kernels = {
        player: [np.asarray(s.params[player]["Dense_0"]["kernel"]) for s in states]
        for player in ("generator", "discriminator")
    }
    same = {player: [np.array_equal(a, b) for a, b in itertools.pairwise(k)] for player, k in kernels.items()}
    assert same == {"generator": [True, False, True], "discriminator": [False, False, False]}


def test_feature_matching_is_the_distance_between_mean_features():
    model = make(feature_matching=True)
    now, key = begin(model), jax.random.key(5)
    loss = loss_of(model, 1)
    value, _ = loss(now.params, now.model_state, key)
    z = jax.random.normal(key, (BATCH, LATENT))
    fake = MLPGenerator((8,), (2,)).apply({"params": now.params["generator"]}, z, train=True)
    real_features, fake_features = (
        MLPDiscriminator((8,)).apply({"params": now.params["discriminator"]}, x, train=True)[1]
        for x in (points(), fake)
    )
    expected = np.sum((np.mean(real_features, axis=0) - np.mean(fake_features, axis=0)) ** 2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # The last layer turns features into logits, so the loss does not depend on it.
    last = jax.tree.map(lambda leaf: leaf + 1.0, now.params["discriminator"]["Dense_1"])
    other = {**now.params, "discriminator": {**now.params["discriminator"], "Dense_1": last}}
    np.testing.assert_array_equal(loss(other, now.model_state, key)[0], value)


@pytest.mark.slow
def test_no_gradient_of_feature_matching_reaches_the_discriminator():
    matching, deceiving = make(feature_matching=True), make()
    now = begin(matching)
    after, other = (advance(model, now, 1)[0][0] for model in (matching, deceiving))
    # The generator's loss differs, but the discriminator follows only its own.
    jax.tree.map(np.testing.assert_array_equal, after.params["discriminator"], other.params["discriminator"])
    jax.tree.map(np.testing.assert_array_equal, after.opt_state["discriminator"], other.opt_state["discriminator"])
    moved = [
        np.any(np.asarray(one) != np.asarray(same))
        for one, same in zip(
            jax.tree.leaves(after.params["generator"]), jax.tree.leaves(other.params["generator"]), strict=True
        )
    ]
    assert all(moved)


@pytest.mark.slow
def test_historical_means_are_explicit_means_of_all_penalised_parameters():
    model = make(historical_averaging=0.1)
    now = begin(model)
    states, metrics = advance(model, now, 5)
    for player in ("generator", "discriminator"):
        # A step penalises the parameters that it begins with.
        past = [s.params[player] for s in [now, *states[:-1]]]
        explicit = jax.tree.map(lambda *leaves: np.mean(np.asarray(leaves, np.float64), axis=0), *past)
        history = states[-1].model_state["history"][player]
        assert int(history["count"]) == 5
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), history["mean"], explicit)
        distance = jax.tree.map(lambda theta, mean: np.sum((np.asarray(theta) - mean) ** 2), past[-1], explicit)
        expected = 0.1 * sum(jax.tree.leaves(distance))
        assert expected > 0
        np.testing.assert_allclose(metrics[f"{player}/historical_averaging"], expected, rtol=1e-3)


@pytest.mark.slow
def test_historical_averaging_adds_its_gradient():
    with_history, without = make(historical_averaging=0.1), make()
    (*_, now), _ = advance(with_history, begin(with_history), 3)

    def gradient(model):
        loss, key = loss_of(model, 1), jax.random.key(7)
        gradient = jax.jit(jax.grad(lambda own: loss({**now.params, "generator": own}, now.model_state, key)[0]))
        return gradient(now.params["generator"])

    # The mean first takes in the current parameters, as the fourth: three quarters of the distance remain.
    old = now.model_state["history"]["generator"]["mean"]
    expected = jax.tree.map(lambda theta, mean: 0.2 * 0.75 * np.asarray(theta - mean), now.params["generator"], old)
    found = jax.tree.map(lambda one, other: np.asarray(one - other), gradient(with_history), gradient(without))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), found, expected)


def test_reference_batches_stay_and_running_statistics_follow_their_own_player():
    model = make(
        generator=WithReferenceBatch(partial(MLPGenerator, (8,), (2,))),
        discriminator=MLPDiscriminator((8, 6), norm=BatchNorm, minibatch_discrimination=MinibatchDiscrimination(3, 2)),
    )
    now = begin(model)
    old = now.model_state
    assert old["generator"]["reference_batch"]["x"].shape == (BATCH, LATENT)
    after = {}
    for index, player in enumerate(("discriminator", "generator")):
        _, (after[player], _) = loss_of(model, index)(now.params, old, jax.random.key(0))
        assert jax.tree.structure(after[player]) == jax.tree.structure(old)
        np.testing.assert_array_equal(
            after[player]["generator"]["reference_batch"]["x"], old["generator"]["reference_batch"]["x"]
        )
    stats_of = [jax.tree.leaves(s["discriminator"]["batch_stats"]) for s in (old, *after.values())]
    for before, moved, left in zip(*stats_of, strict=True):
        assert np.any(np.asarray(before) != np.asarray(moved))
        # The generator's step does not change the discriminator's statistics.
        np.testing.assert_array_equal(before, left)


def test_a_reference_batch_stays_bit_for_bit_where_the_mean_of_equal_devices_would_round():
    model, devices = make(generator=WithReferenceBatch(partial(MLPGenerator, (8,), (2,)))), 7
    now = begin(model)
    reference = np.array(now.model_state["generator"]["reference_batch"]["x"])
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), now)
    mean = jax.vmap(lambda leaf: jax.lax.pmean(leaf, "devices"), axis_name="devices")
    assert np.any(np.asarray(mean(jnp.stack([reference] * devices))) != reference)
    train_step = step.make_train_step(model.model, optimizers(), seed=0, axis_name="devices")
    batch = {"x": points(count=2 * devices).reshape(devices, 2, 2)}
    later, _ = jax.jit(jax.vmap(train_step, axis_name="devices"))(copies, batch)
    for on_device in later.model_state["generator"]["reference_batch"]["x"]:
        np.testing.assert_array_equal(on_device, reference)


def test_running_statistics_take_in_data_then_samples_in_their_own_step():
    generator, discriminator = MLPGenerator((8,), (2,), norm=BatchNorm), MLPDiscriminator((8, 6), norm=BatchNorm)
    model = make(generator=generator, discriminator=discriminator)
    now = begin(model)
    old, key = now.model_state, jax.random.key(4)

    def play(network, player, state, x):
        variables = {"params": now.params[player], **state}
        return network.apply(variables, x, train=True, mutable=["batch_stats"])

    def check(found, expected):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)

    _, (judged, _) = loss_of(model, 0)(now.params, old, key)
    latents = jax.random.normal(jax.random.split(key)[0], (BATCH, LATENT))
    (fake, _) = play(generator, "generator", old["generator"], latents)
    _, after_data = play(discriminator, "discriminator", old["discriminator"], points())
    _, after_both = play(discriminator, "discriminator", after_data, fake)
    check(judged["discriminator"], after_both)
    check(judged["generator"], old["generator"])

    _, (made, _) = loss_of(model, 1)(now.params, old, key)
    _, after_latents = play(generator, "generator", old["generator"], jax.random.normal(key, (BATCH, LATENT)))
    check(made["generator"], after_latents)
    check(made["discriminator"], old["discriminator"])


def test_samples_are_made_in_evaluation_mode_and_do_not_depend_on_one_another():
    generator = MLPGenerator((8,), (2,), norm=BatchNorm)
    model, key = make(generator=generator), jax.random.key(6)
    z = jax.random.normal(key, (BATCH, LATENT))
    shapes = jax.eval_shape(partial(generator.init, train=True), key, z)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), leaf.dtype), shapes)
    params, model_state = {"generator": variables["params"]}, {"generator": {"batch_stats": variables["batch_stats"]}}
    samples = model.model.sample(params, model_state, key, BATCH)
    for i in (0, BATCH - 1):
        alone = generator.apply(variables, z[i : i + 1], train=False)
        np.testing.assert_allclose(samples[i], alone[0], rtol=1e-5, atol=1e-6)
    in_training, _ = generator.apply(variables, z, train=True, mutable=["batch_stats"])
    assert np.abs(samples - in_training).max() > 0.01


def test_images_are_scaled_and_restored():
    scaling = gan.images(levels=17)
    x = jnp.arange(17, dtype=jnp.uint8).reshape(1, 17, 1, 1)
    h = scaling.prepare(x)
    np.testing.assert_allclose(h.ravel(), np.linspace(-1, 1, 17), atol=1e-6)
    np.testing.assert_array_equal(scaling.to_data(h), x)
    np.testing.assert_allclose(scaling.to_unit(h), np.linspace(0, 1, 17)[None], atol=1e-6)
    np.testing.assert_array_equal(scaling.to_data(jnp.array([-1.5, 1.5])), [0, 16])


def test_log_prob_is_a_mixture_of_kernels_with_the_calibrated_bandwidth():
    model = make(kernels=KERNELS)
    now, x = begin(model), points(9, 200)
    found, notes = model.calibrate(now.params, now.model_state, jax.random.key(0), x)
    likelihood = model.model.log_prob(now.params, found, jax.random.key(4), jnp.asarray(x[:20]))
    assert (likelihood.kind, likelihood.settings) == ("estimate", (("centres", 50),))
    z = jax.random.normal(jax.random.key(0), (50, LATENT))
    centres = np.asarray(model.generate(now.params, now.model_state, z), np.float64)

    def mixture(x, bandwidth):
        kernels = [stats.multivariate_normal(c, bandwidth**2).logpdf(x) for c in centres]
        return np.logaddexp.reduce(kernels, axis=0) - np.log(50)

    np.testing.assert_allclose(likelihood.log_prob, mixture(x[:20], float(found["bandwidth"])), rtol=2e-4)
    grid = np.geomspace(0.01, 10.0, 30)
    best = grid[np.argmax([mixture(x, h).mean() for h in grid])]
    np.testing.assert_allclose(found["bandwidth"], best, rtol=1e-5)
    assert notes == {"bandwidth": found["bandwidth"], "bandwidth_at_edge_of_grid": False}


def test_a_label_is_refused_and_without_kernels_there_is_no_density():
    model = make()
    assert model.model.log_prob is None
    now = begin(model)
    with pytest.raises(ValueError, match="no density"):
        model.calibrate(now.params, now.model_state, jax.random.key(0), points())
    with pytest.raises(UserError, match="no labels"):
        model.model.sample(now.params, now.model_state, jax.random.key(0), 2, label=jnp.zeros(2, jnp.int32))


def test_feature_matching_over_an_axis_averages_the_whole_batch():
    model = make(feature_matching=True, axis_name="devices")
    now, keys = begin(model), jax.random.split(jax.random.key(2), 2)
    loss = model.model.objectives[1].loss

    @partial(jax.vmap, axis_name="devices")
    def mapped(key, x):
        return loss(now.params, now.model_state, key, {"x": x})[0]

    found = jax.jit(mapped)(keys, points().reshape(2, BATCH // 2, 2))
    z = jnp.concatenate([jax.random.normal(key, (BATCH // 2, LATENT)) for key in keys])
    fake = MLPGenerator((8,), (2,)).apply({"params": now.params["generator"]}, z, train=True)
    real_mean, fake_mean = (
        np.mean(MLPDiscriminator((8,)).apply({"params": now.params["discriminator"]}, x, train=True)[1], axis=0)
        for x in (points(), fake)
    )
    np.testing.assert_allclose(found, np.full(2, np.sum((real_mean - fake_mean) ** 2)), rtol=1e-5)


class SameLatents(nn.Module):
    """A generator of the same latents in every step and on every device, because strategies draw different ones."""

    generator: nn.Module

    @nn.compact
    def __call__(self, z, *, train):
        few = jax.random.normal(jax.random.key(8), (BATCH // 2, z.shape[1]))
        return self.generator(few[np.arange(len(z)) % len(few)], train=train)


# With feature matching the generator's loss ignores the similarities; without it, the mean features.
@pytest.mark.slow
@pytest.mark.parametrize("feature_matching", [True, False])
def test_both_players_get_the_same_update_under_every_strategy(feature_matching):
    def two_players(axis_name):
        return make(
            generator=SameLatents(WithReferenceBatch(partial(MLPGenerator, (8,), (2,)))),
            discriminator=MLPDiscriminator(
                (8,), minibatch_discrimination=MinibatchDiscrimination(3, 2, axis_name=axis_name)
            ),
            feature_matching=feature_matching,
            historical_averaging=0.1,
            axis_name=axis_name,
        )

    # Plain descent, because Adam divides a vanishing gradient by its own size.
    descent = {player: optax.sgd(0.1) for player in optimizers()}
    fresh = state.create(two_players(None).model, descent, jax.random.key(0), {"x": points()})
    ends = {}
    for name, strategy in {"jit": parallel.jit(), "pmap": parallel.pmap(), "vmap": parallel.vmap(2)}.items():
        model = two_players(strategy.axis_name).model
        compiled = strategy.compile(step.make_train_step(model, descent, seed=0, axis_name=strategy.axis_name))
        current = strategy.place(jax.tree.map(jnp.copy, fresh))
        for index in range(3):
            current, metrics = compiled(current, strategy.place_batches({"x": points(index)[None]}))
        ends[name] = jax.device_get((current, metrics))
    for name in ("pmap", "vmap"):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6), ends[name][0], ends["jit"][0])
        # Under a map the reported norm is also of the averaged gradient.
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), ends[name][1], ends["jit"][1])
    moved = jax.tree.map(lambda old, new: np.abs(old - new).max(), jax.device_get(fresh.params), ends["jit"][0].params)
    assert all(distance > 1e-4 for distance in jax.tree.leaves(moved)), moved


class Bare(nn.Module):
    """A discriminator without features."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(1)(x)


def test_networks_of_another_shape_are_refused_at_init():
    batch = {"x": points()}
    for model, message in (
        (make(generator=MLPGenerator((8,), (3,))), r"the generator must return \[16, 2\] for 16 .* returns \[16, 3\]"),
        (make(discriminator=Bare()), r"the discriminator must return \[16\] and \[16, F\] .* returns \[16, 1\]"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(model.model.init, jax.random.key(0), batch)
