"""One row of the page: the numbers of a family on each kind of data, and the row of a family that fails."""

import dataclasses
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import fvsbn, gan, latent_diffusion, nice
from gm_jax import recipes, signals
from gm_jax.comparison import families, measure
from gm_jax.comparison.measure import Family
from gm_jax.data import binary_digits, sources
from gm_jax.evaluation import enumeration, features, sample_metrics
from gm_jax.plotting import images
from gm_jax.recipes.experiment import Experiment
from gm_jax.types import Likelihood, Model, Objective

FVSBN = Family("FVSBN", fvsbn.CONFIG, {"images": {"train": {"batch_size": 50}}, "small_world": {}})


def by_name(outcome):
    assert outcome.error is None, outcome.error
    return {record.name: record for record in outcome.records if record.unit != "bits/dim"}


def test_a_family_is_compared_with_the_whole_small_world(clock, tmp_path):
    outcome = measure.measure_family(FVSBN, "digits4x4", seconds=1.0, seed=0, folder=tmp_path)
    found = by_name(outcome)
    p = binary_digits.small_world_probabilities()
    truth, kl = found["nll_of_world"], found["kl_to_world"]
    assert (truth.kind, truth.settings["by"], truth.settings["family"]) == ("exact", "enumeration", "FVSBN")
    np.testing.assert_allclose(truth.value - kl.value, enumeration.entropy(p), atol=1e-6)
    # The mean over the test split estimates the truth.
    reported = found["nll"]
    assert reported.split == "test"
    assert abs(reported.value - truth.value) < 5 * reported.settings["standard_error"]
    own = found["tv_samples_to_model"]
    np.testing.assert_allclose(own.settings["sum_of_q"], 1.0, atol=1e-4)
    assert abs(own.value - own.settings["of_exact_draws"]) < 6 * own.settings["of_exact_draws_sd"]
    assert 0.1 < found["tv_samples_to_data"].value < 0.9
    assert outcome.pictures["samples"].stat().st_size > 100
    assert outcome.num_params == 16 * 16 + 16  # a masked matrix and a bias
    assert outcome.samples_per_second > 0
    assert outcome.evaluations == 1  # by default
    assert (outcome.seconds, outcome.steps) == (1.0, 64 * FVSBN.config.train.steps_per_call)
    assert (found["training"].value, found["steps"].value) == (outcome.seconds, outcome.steps)
    assert found["samples_per_second"].value == outcome.samples_per_second
    assert len(outcome.curve) == 8


@pytest.mark.slow
def test_samples_of_images_are_compared_with_the_training_split(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_metrics, "_SUBSETS", 3)
    extractor = features.load("digits-cnn")
    outcome = measure.measure_family(
        FVSBN, "binarized_digits", seconds=clock.TICK, seed=0, folder=tmp_path, extractor=extractor
    )
    found = by_name(outcome)
    settings = found["frechet[digits-cnn]"].settings
    assert (settings["num_real"], settings["num_generated"]) == (1437, 1437)
    reference = {r.name: r for r in measure.measure_data("binarized_digits", tmp_path, extractor).records}
    # After one call of its step FVSBN draws no digits: held-out digits are much nearer.
    assert found["frechet[digits-cnn]"].value > 2 * reference["frechet[digits-cnn]"].value


def test_draws_of_a_likelihood_are_averaged_as_the_family_states():
    sigma, level, measure_of_states = 0.5, -16 * np.log(2.0), "binary"

    def log_prob(params, model_state, key, x):
        noise = sigma * jax.random.normal(key, x.shape[:1])
        return Likelihood(level - 0.5 * sigma**2 + noise, "lower_bound", measure_of_states)

    def found(family, **settings):
        model = Model(init=None, objectives=(), sample=None, log_prob=log_prob)
        run = types.SimpleNamespace(
            experiment=Experiment(model, {}, **settings), spec=types.SimpleNamespace(shape=(4, 4, 1))
        )
        state = types.SimpleNamespace(eval_params={}, model_state={})
        return measure.log_prob_of_states(family, run, state, p)

    p = binary_digits.small_world_probabilities()
    log_q, kind, way = found(Family("unbiased", fvsbn.CONFIG, {}))
    assert (kind, way) == ("estimate", "mean over 256 draws of the noise")
    np.testing.assert_array_equal(np.isfinite(log_q), p > 0)
    np.testing.assert_allclose(np.nanmean(log_q), level, atol=0.01)
    log_q, kind, way = found(Family("bound", fvsbn.CONFIG, {}, average=enumeration.averaged_bound))
    assert (kind, way) == ("lower_bound", "mean over 4 draws of the noise")
    np.testing.assert_allclose(np.nanmean(log_q), level - 0.5 * sigma**2, atol=0.03)
    # A density is not a probability of states.
    measure_of_states = "continuous"
    assert found(Family("kernels", fvsbn.CONFIG, {})) is None


def test_only_families_that_estimate_a_bound_average_their_logs():
    # exp of importance weights and of dequantised densities is unbiased; exp of a diffusion model's bound is not.
    averages = {row.name: getattr(row.average, "func", row.average) for row in families.table()}
    bounds = {name for name, average in averages.items() if average is enumeration.averaged_bound}
    assert bounds == {"DDPM", "D3PM", "latent diffusion", "masked diffusion", "minimax EBM"}
    assert set(averages.values()) == {enumeration.averaged_bound, enumeration.averaged_probability}


def test_every_optimiser_of_a_configuration_has_a_constant_rate():
    defaults = {"gan": gan.CONFIG, "latent_diffusion": latent_diffusion.CONFIG}
    rows = {name: Family(name, config, {"images": {}}) for name, config in defaults.items()}
    configs = {name: measure.configured(row, "digits", seed=0) for name, row in rows.items()}
    assert gan.CONFIG.generator.schedule == latent_diffusion.CONFIG.autoencoder.optimizer.schedule == "cosine"
    assert configs["gan"].generator == dataclasses.replace(gan.CONFIG.generator, schedule="constant")
    assert configs["gan"].discriminator.schedule == "constant"
    assert configs["latent_diffusion"].optimizer.schedule == "constant"
    assert configs["latent_diffusion"].autoencoder.optimizer.schedule == "constant"


def test_a_row_changes_only_its_settings_and_the_schedule():
    config = measure.configured(Family("NICE", nice.CONFIG, {"small_world": {"hidden": (16,)}}), "digits4x4", seed=3)
    assert (config.data.name, config.train.seed, config.hidden) == ("digits4x4", 3, (16,))
    assert config.optimizer.schedule == "constant"
    assert config.recipe == nice.CONFIG.recipe


def kernel_nll(x, centres, bandwidth):
    """Computes the mean -log p of points under kernels, written out in float64."""
    squared = np.square(np.asarray(x, np.float64)[:, None] - np.asarray(centres, np.float64)[None]).sum(-1)
    log_kernels = -0.5 * squared / bandwidth**2 - np.log(2 * np.pi * bandwidth**2)
    return -np.mean(np.logaddexp.reduce(log_kernels, axis=1) - np.log(len(centres)))


def test_a_family_without_a_likelihood_gets_one_from_kernels(clock, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "build", implicit_normal)
    monkeypatch.setattr(measure, "_HELD_OUT", 200)
    family, source = Family("implicit", fvsbn.CONFIG, {"points": {}}), sources.load("toy:two_moons")
    centres = 2.0 * np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(0), 0), (500, 2)))[:400]
    # The validation split lies at the model's samples, and chooses a bandwidth that the test split would not.
    near = centres[:200] + 0.05 * np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    splits = {**source.splits, "validation": {**source.splits["validation"], "x": near}}
    monkeypatch.setattr(sources, "load", lambda *args: source._replace(splits=splits))
    outcome = measure.measure_family(family, "toy:two_moons", seconds=0.1, seed=0, folder=tmp_path)
    record, test = by_name(outcome)["nll"], splits["test"]["x"][:200]
    assert (record.kind, record.split, record.examples) == ("estimate", "test", 200)
    assert record.settings["kernel density, centres"] == 400
    grid = np.geomspace(0.02, 1.0, 18)
    chosen, other = (grid[np.argmin([kernel_nll(x, centres, h) for h in grid])] for x in (near, test))
    assert other > 2 * chosen
    np.testing.assert_allclose(record.settings["bandwidth"], chosen, rtol=1e-5)
    np.testing.assert_allclose(record.value, kernel_nll(test, centres, chosen), rtol=1e-4)
    assert outcome.pictures["density"].exists()


def implicit_normal(config, spec):
    """Builds an experiment whose model can only draw from N(0, 4 I)."""

    def loss(params, model_state, key, batch):
        return jnp.square(params["one"]["w"]), (model_state, {})

    def sample(params, model_state, key, n, *, label=None):
        return 2.0 * jax.random.normal(key, (n, 2))

    init = lambda key, batch: ({"one": {"w": jnp.ones(())}}, {})  # noqa: E731
    return Experiment(Model(init, (Objective("one", loss),), sample), {"one": optax.sgd(0.1)})


def test_the_outcome_of_a_failed_family_holds_the_error(tmp_path, monkeypatch, capsys):
    def build(config, spec):
        raise ValueError("the couplings do not fit\nat all")

    monkeypatch.setattr(recipes, "build", build)
    for family, message in (
        (Family("broken", fvsbn.CONFIG, {"small_world": {}}), "failed: ValueError: the couplings do not fit"),
        (Family("typo", fvsbn.CONFIG, {"small_world": {"hiden": 3}}), "failed: UserError: FVSBNConfig"),
        (Family("other", fvsbn.CONFIG, {"images": {}}), "not trained on small world"),
    ):
        outcome = measure.measure_family(family, "digits4x4", seconds=0.1, seed=0, folder=tmp_path)
        assert outcome.error.startswith(message)
        assert outcome.records == ()
    assert "Traceback" in capsys.readouterr().err


def test_the_data_have_their_own_row_of_reference_scores_and_their_own_pictures(tmp_path):
    moons = measure.measure_data("toy:two_moons", tmp_path)
    (entropy,) = moons.records
    assert {what: path.exists() for what, path in moons.pictures.items()} == {"density": True, "samples": True}
    height, width, _ = images.read(moons.pictures["density"]).shape
    assert height == width
    np.testing.assert_allclose(entropy.value, 2.394, atol=1e-3)
    world = {record.name: record.value for record in measure.measure_data("digits4x4", tmp_path).records}
    assert world["kl_to_world"] == 0.0


@pytest.mark.slow
def test_log_z_is_estimated_once(clock, tmp_path, monkeypatch):
    seen, prepared = [], measure.measure.prepared

    def count(run, state, *, seed):
        found = prepared(run, state, seed=seed)
        seen.append(found[1]["log_z"])
        return found

    monkeypatch.setattr(measure.measure, "prepared", count)
    few = {"temperatures": 10, "runs": 5, "raise_temperatures": 0, "validation_temperatures": 10, "sampling_sweeps": 10}
    settings = {"images": {"hidden": 30, **few}}
    row = next(row for row in families.table() if row.name == "RBM")._replace(settings=settings)
    for seed in (0, 1):
        outcome = measure.measure_family(row, "binarized_digits", seconds=clock.TICK, seed=seed, folder=tmp_path)
        assert by_name(outcome)["nll_at_high_log_z"].settings["log_z"] == seen[seed]
    assert len(seen) == 2


@pytest.mark.parametrize("moment", ["training", "measuring", "between"])
def test_a_signal_ends_a_comparison_and_is_no_error_of_a_family(moment, clock, tmp_path, monkeypatch):
    def sent(owner, name):
        original = getattr(owner, name)

        def interrupted(*args, **kwargs):
            if not signals.requested():  # the second would end this process
                signal.raise_signal(signal.SIGINT)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, interrupted)

    with signals.deferred():
        if moment == "training":
            sent(measure.train_for_time.pipeline, "train_batches")
        elif moment == "measuring":
            sent(measure.measure, "measure_run")
        else:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            measure.measure_family(FVSBN, "digits4x4", seconds=2 * clock.TICK, seed=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())
