"""Numbers that are no numbers: likelihoods and data are errors that name their cause, one about samples is marked."""

import importlib
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.config.saved import updated
from gm_jax.data import pipeline, sources
from gm_jax.errors import UserError
from gm_jax.evaluation import likelihood, results
from gm_jax.recipes.experiment import CaptionEvaluation, ClassEvaluation, Measured, SampleEvaluation
from gm_jax.runner import measure
from gm_jax.runner.run import assemble, reopen
from gm_jax.types import Likelihood

SMALL = {"train": {"steps": 4, "batch_size": 32}}


def run_on_points(folder, experiment="vae", **changes):
    config = importlib.import_module(f"experiments.{experiment}").CONFIG
    return assemble(updated(config, {"data": {"name": "toy:two_moons"}, **SMALL, **changes}), folder)


def with_bad_points(run, split, value, places=(3, 5)):
    x = run.loaded[split]["x"].copy()
    x[list(places), 0] = value
    return run._replace(splits={**run.loaded, split: {**run.loaded[split], "x": x}})


@pytest.mark.parametrize(("batch_size", "expected"), [(50_000, 4), (3, 4), (1, 2)])
def test_a_batch_of_an_evaluation_is_no_larger_than_the_split(batch_size, expected, tmp_path, monkeypatch):
    run = run_on_points(tmp_path)  # over two devices
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    run = run._replace(splits={**run.loaded, "test": {"x": x}})
    sizes, eval_batches = [], pipeline.eval_batches
    monkeypatch.setattr(pipeline, "eval_batches", lambda split, size: sizes.append(size) or eval_batches(split, size))

    def log_prob(params, model_state, key, x):
        return Likelihood(x.sum(axis=1), "exact", "continuous")

    state = run.strategy.place(run.initial_state())
    summary = measure.evaluator(run, log_prob, seed=0, batch_size=batch_size)(state, "test")
    assert sizes == [expected]
    assert summary.num_examples == 3
    np.testing.assert_allclose(summary.mean, x.sum(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_that_are_not_finite_are_named_before_anything_is_measured(tmp_path, value):
    run = with_bad_points(run_on_points(tmp_path), "test", value)
    with pytest.raises(UserError, match=r"2 of \d+ examples in the test split of toy:two_moons .* number 3") as refused:
        measure.measure_run(run, run.strategy.place(run.initial_state()), 0, split="test", seed=0)
    assert len(str(refused.value).splitlines()) <= 3


def test_a_likelihood_that_is_nan_for_one_example_is_an_error(whole):
    run = reopen(whole)

    def log_prob(params, model_state, key, x):
        value = jnp.where(jnp.sum(x, axis=(1, 2, 3)) == jnp.sum(run.loaded["test"]["x"][7]), jnp.nan, -1.0)
        return Likelihood(value, kind="exact", measure="binary")

    run = run._replace(experiment=run.experiment._replace(model=run.experiment.model._replace(log_prob=log_prob)))
    with pytest.raises(UserError, match=r"nll is nan for \d+ of 180 examples of the test split"):
        measure.measure_run(run, run.restore()[0], 60, split="test", seed=0)


@pytest.mark.slow
def test_the_command_ends_with_an_error_and_leaves_the_results_alone(command, tmp_path, monkeypatch):
    load = sources.load

    def load_with_nan(name, data_dir=None, size=None):
        source = load(name, data_dir)
        x = source.splits["test"]["x"].copy()
        x[11] = np.nan
        return source._replace(splits={**source.splits, "test": {**source.splits["test"], "x": x}})

    monkeypatch.setattr(sources, "load", load_with_nan)
    tiny = ("--data.name", "toy:two_moons", "--hidden", "4", "--latent-dim", "2", "--importance-samples", "2")
    ended = command("--workdir", tmp_path / "run", *tiny, "--train.steps", "4", "--train.batch-size", "32")
    assert ended.code == 2
    assert "test split of toy:two_moons" in ended.err
    assert not (tmp_path / "run" / "results.json").exists()
    monkeypatch.setattr(sources, "load", load)
    assert command("evaluate", "--workdir", tmp_path / "run").code == 0
    assert all(record["value"] is not None for record in json.loads((tmp_path / "run" / "results.json").read_text()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_counted_on_samples_that_is_not_finite_is_marked_and_costs_no_other(whole, caplog, value):
    run = reopen(whole)
    counted = {"odd": value, "even": 2.0}
    evaluation = SampleEvaluation(dict.fromkeys(counted, "of samples"), lambda samples: counted, num_samples=4)
    run = run._replace(experiment=run.experiment._replace(evaluations=(evaluation,)))
    with caplog.at_level(logging.WARNING, logger="gm_jax"):
        records = measure.measure_run(run, run.restore()[0], 60, split="test", seed=0)
    assert f"odd of 4 samples is {value}" in caplog.text
    found = {record.name: record.value for record in records if record.unit != "bits/dim"}
    assert np.isfinite(found["nll"])
    assert {name: found[name] for name in counted} == {"odd": None, "even": 2.0}
    assert "not finite" in results.table(records)


def test_class_probabilities_are_measured_on_every_example_once(whole):
    run = reopen(whole)

    def predict(params, model_state, key, x):
        return jnp.log(jnp.stack([x.sum(axis=(1, 2, 3)), jnp.ones(x.shape[0])], axis=1).astype(jnp.float32))

    def measure_classes(log_probs, labels):
        expected = run.loaded["test"]["x"].astype(np.float32).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(np.exp(log_probs[:, 0]), expected, rtol=1e-5)
        np.testing.assert_array_equal(labels, run.loaded["test"]["label"])
        return {"accuracy": 0.25}

    evaluation = ClassEvaluation({"accuracy": "share"}, predict, measure_classes)
    run = run._replace(experiment=run.experiment._replace(evaluations=(evaluation,)))
    *_, record = measure.measure_run(run, run.restore()[0], 60, split="test", seed=0)
    assert record[:3] == ("accuracy", 0.25, "share")
    assert (record.kind, record.split, record.examples) == ("score", "test", 180)


def test_samples_of_captions_stand_beside_their_captions_examples_and_reconstructions(tmp_path):
    run = run_on_points(tmp_path)
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    tokens = np.arange(15, dtype=np.int32).reshape(5, 3)
    seen = []

    def sample(params, model_state, key, n, *, label):
        return label[:, :2] + 0.5

    def record(drawn, captions, examples, kept):
        seen.extend((drawn, captions, examples, kept))
        return {"rate": Measured(0.25, np.inf, 3)}

    evaluation = CaptionEvaluation({"rate": "share"}, record, lambda params, model_state, key, x: 2.0 * x, 4)
    model = run.experiment.model._replace(sample=sample, log_prob=None)
    run = run._replace(
        experiment=run.experiment._replace(model=model, evaluations=(evaluation,)),
        splits={**run.loaded, "test": {"x": x, "tokens": tokens}},
    )
    (found,) = measure.measure_run(run, run.strategy.place(run.initial_state()), 7, split="test", seed=3)
    for array, expected in zip(seen, (tokens[:4, :2] + 0.5, tokens[:4], x[:4], 2.0 * x[:4]), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-6)
    assert (found.name, found.value, found.unit, found.split, found.examples) == ("rate", 0.25, "share", "test", 4)
    assert found.settings["standard_error"] is None  # not finite
    assert found.settings["captions"] == 3
    # What was found before captions were counted is replaced.
    old = found._replace(settings={name: value for name, value in found.settings.items() if name != "captions"})
    assert results.merge([old], [found]) == [found]
    assert (found.settings["step"], found.settings["seed"]) == (7, 3)


def test_an_infinite_likelihood_is_a_result_and_no_error():
    values = jnp.asarray([-1.0, -jnp.inf, jnp.nan])
    batch = {"x": np.zeros((3, 1))}

    def summary(mask):
        return likelihood.evaluate(lambda index, x: Likelihood(values, "exact", "binary"), [(batch, np.array(mask))])

    assert summary([True, True, False])[:2] == pytest.approx((-np.inf, np.nan), nan_ok=True)
    assert (summary([True, True, False]).num_nan, summary([True, True, True]).num_nan) == (0, 1)


def test_the_noise_of_a_preparation_follows_the_seed_and_a_prepared_state_is_not_prepared_again(tmp_path):
    def prepare(params, model_state, key, x):
        return model_state, {"drawn": jax.random.uniform(key), "fitted_to": jnp.mean(x)}

    run = run_on_points(tmp_path, hidden=(4,), latent_dim=2, importance_samples=2)
    splits = {split: {"x": arrays["x"][:64]} for split, arrays in run.loaded.items()}
    run = run._replace(experiment=run.experiment._replace(prepare_evaluation=prepare, evaluations=()), splits=splits)
    state = run.strategy.place(run.initial_state())
    first, again, other = (measure.prepared(run, state, seed=seed)[1]["drawn"] for seed in (0, 0, 1))
    assert first == again != other
    # The test split is measured, so that nothing may be fitted to it.
    fitted_to = measure.prepared(run, state, seed=0)[1]["fitted_to"]
    means = {split: np.mean(arrays["x"]) for split, arrays in splits.items()}
    assert min(means, key=lambda split: abs(means[split] - fitted_to)) == "validation"
    assert fitted_to == pytest.approx(means["validation"], rel=1e-5)
    assert first != float(jax.random.uniform(jax.random.key(0)))  # the seed's own bits are those of training
    records = measure.measure_run(run, state, 0, split="test", seed=0, facts={"drawn": 7.0})
    assert {record.settings["drawn"] for record in records} == {7.0}
