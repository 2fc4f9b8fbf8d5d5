"""Every field of a GAN's configuration reaches the game, the networks or the loss, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import gan, improved_gan, wgan_gp
from gm_jax import recipes
from gm_jax.config.saved import updated
from gm_jax.data.sources import Spec
from gm_jax.models import adversarial_objectives
from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination
from gm_jax.networks.normalization import WithReferenceBatch
from gm_jax.recipes import gan as recipes_gan
from gm_jax.runner import measure
from gm_jax.runner.run import Run
from gm_jax.training import parallel, state

DIGITS, POINTS = Spec("digits", (8, 8, 1), 17, 10, ""), Spec("toy:two_moons", (2,), None, None, "")
REAL, FAKE = jnp.array([0.5, -2.0, 3.0]), jnp.array([-0.3, 1.5, 0.7])
NONE = {
    "feature_matching": False,
    "minibatch_discrimination": False,
    "historical_averaging": 0.0,
    "label_smoothing": 0.0,
    "virtual_batch_norm": False,
}


@pytest.fixture
def asked(monkeypatch):
    """(experiment, spec, flags) -> what `build` hands on: generator, discriminator, game and all else by name."""

    def build(name, spec=DIGITS, **flags):
        handed = {}

        def experiment(config, spec, generator, discriminator, game, **settings):
            handed.update(settings, generator=generator, discriminator=discriminator, game=game)

        monkeypatch.setattr(recipes_gan, "adversarial_experiment", experiment)
        config = {"gan": gan, "improved_gan": improved_gan, "wgan_gp": wgan_gp}[name].CONFIG
        recipes.build(updated(config, {"train": {"parallel": flags.pop("parallel", "jit")}, **flags}), spec)
        return handed

    return build


def smoothing(game):
    """The real target that a game of cross-entropy plays with, from the slope of its loss in the real logit."""
    low, high = (game.discriminator(jnp.full(1, logit), jnp.full(1, -50.0))[0] for logit in (-30.0, 30.0))
    # softplus(l) - a l: 30 a at -30, 30 - 30 a at 30.
    np.testing.assert_allclose(low + high, 30.0, rtol=1e-5)
    return float(low / 30.0)


def switched_on(handed):
    """Which of the five techniques."""
    return {
        "feature_matching": handed["feature_matching"],
        "minibatch_discrimination": isinstance(
            handed["discriminator"].minibatch_discrimination, MinibatchDiscrimination
        ),
        "historical_averaging": handed["historical_averaging"],
        "label_smoothing": round(1.0 - smoothing(handed["game"]), 5),
        "virtual_batch_norm": isinstance(handed["generator"], WithReferenceBatch),
    }


def test_each_of_the_five_techniques_is_a_switch_of_its_own(asked):
    assert switched_on(asked("improved_gan", **NONE)) == NONE
    ways = {name: True for name in NONE} | {"historical_averaging": 0.25, "label_smoothing": 0.125}
    for name, value in ways.items():
        only = {**NONE, name: value}
        assert switched_on(asked("improved_gan", **only)) == only, name


def test_techniques_that_compare_a_batch_use_all_devices_under_pmap(asked):
    for strategy, axis in (("jit", None), ("pmap", "batch")):
        handed = asked("improved_gan", parallel=strategy)
        assert handed["axis_name"] == axis
        assert handed["discriminator"].minibatch_discrimination.axis_name == axis


def test_minibatch_discrimination_has_the_configured_sizes(asked):
    module = asked("improved_gan", kernels=5, kernel_dim=3)["discriminator"].minibatch_discrimination
    assert (module.num_kernels, module.kernel_dim) == (5, 3)


def test_the_critic_updates_more_often_and_has_the_penalty_of_its_data(asked):
    critic = asked("wgan_gp", critic_steps=3)
    assert critic["generator_every"] == 3
    assert (critic["discriminator"].norm, critic["discriminator"].output_bias) == (None, False)
    np.testing.assert_allclose(critic["game"].discriminator(REAL, FAKE), FAKE - REAL)
    for spec, flags, weight in ((DIGITS, {}, 10.0), (POINTS, {}, 0.1), (POINTS, {"penalty": 3.0}, 3.0)):
        (penalty,) = asked("wgan_gp", spec, **flags)["penalties"].values()
        # A critic without a slope pays the weight itself.
        paid = penalty(jax.random.key(0), lambda x: 0.0 * x[:, 0], REAL[:, None], FAKE[:, None])
        np.testing.assert_allclose(paid, np.full(3, weight), rtol=1e-6)


def test_the_generators_schedule_ends_with_its_own_last_update():
    # Adam's step on a constant gradient is the learning rate: half a cosine over the updates of each player.
    optimizers = recipes.build(updated(wgan_gp.CONFIG, {"critic_steps": 5, "train": {"steps": 50}}), POINTS).optimizers
    for player, updates in (("discriminator", 50), ("generator", 10)):
        settings = getattr(wgan_gp.CONFIG, player)
        assert (settings.schedule, settings.warmup_steps) == ("cosine", 0)
        adam, rates = optimizers[player], []
        opt_state = adam.init(jnp.zeros(()))
        for _ in range(updates):
            change, opt_state = adam.update(jnp.ones(()), opt_state)
            rates.append(-float(change))
        expected = settings.learning_rate * 0.5 * (1 + np.cos(np.pi * np.arange(updates) / updates))
        np.testing.assert_allclose(rates, expected, rtol=1e-3)


@pytest.mark.parametrize("game", ["saturating", "hinge", "least_squares"])
def test_a_game_is_chosen_by_its_name(asked, game):

    handed = asked("gan", game=game)["game"]
    for ours, theirs in zip(handed[:2], getattr(adversarial_objectives, game)()[:2], strict=True):
        arguments = (REAL, FAKE) if ours is handed.discriminator else (FAKE,)
        np.testing.assert_array_equal(ours(*arguments), theirs(*arguments))


def test_r1_and_spectral_norm_replace_batch_norm(asked):
    plain, spectral, penalised = asked("gan"), asked("gan", spectral_norm=True), asked("gan", r1=2.0)
    assert plain["discriminator"].norm is not None
    assert not plain["discriminator"].spectral_norm
    assert plain["penalties"] == {}
    assert (spectral["discriminator"].norm, spectral["discriminator"].spectral_norm) == (None, True)
    assert penalised["discriminator"].norm is None
    paid = penalised["penalties"]["r1"](None, lambda x: 3.0 * x[:, 0], REAL[:, None], FAKE[:, None])
    np.testing.assert_allclose(paid, np.full(3, 2.0 * 9.0 / 2), rtol=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, {}), (1e4, {"bandwidth_at_edge_of_grid": True})])
def test_a_result_reports_a_bandwidth_at_the_edge_of_its_grid(scale, expected):
    config = updated(gan.CONFIG, {"hidden": (4,), "centres": 10})
    experiment, x = recipes.build(config, POINTS), np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    now = state.create(experiment.model, experiment.optimizers, jax.random.key(0), {"x": x})
    run = Run(config, POINTS, {"validation": {"x": scale * x}}, experiment, parallel.jit(), None)
    _, found = measure.prepared(run, now, seed=0)
    bandwidth = found.pop("bandwidth")
    assert found == expected
    if expected:
        np.testing.assert_allclose(bandwidth, 10.0, rtol=1e-5)
    else:
        assert 0.1 < bandwidth < 5.0
