"""The interval of a mean -log p: found among records, and around the truth in the exact small world."""

import types

import jax
import numpy as np
import pytest

from gm_jax import recipes
from gm_jax.comparison import families, intervals, measure
from gm_jax.data import sources
from gm_jax.evaluation.results import Record


def record(name, kind, value=1.0, unit="nats", **settings):
    return Record(name, value, unit, kind, "digits4x4", "binary", "test", 10, settings)


def test_an_exact_number_is_both_ends():
    exact = record("nll", "exact")
    assert intervals.find([record("nll", "exact", unit="bits/dim"), exact]) == (exact, exact, exact)


def test_an_interval_needs_both_ends():
    low, high = record("nll_at_low_log_z", "upper_bound", 1.0), record("nll_at_high_log_z", "lower_bound", 2.0)
    assert intervals.find([record("nll", "estimate"), low, high]) == (low, high, None)
    assert intervals.find([low]) is None
    assert intervals.find([low, high._replace(value=None)]) is None
    # Two bounds on the same side are no interval.
    assert intervals.find([low._replace(kind="lower_bound"), high]) is None
    ends = record("nll_of_samples", "upper_bound"), record("nll_of_samples", "lower_bound")
    truth = record("nll_of_samples", "exact")
    assert intervals.find([record("nll", "lower_bound"), *ends, truth]) == (*ends, truth)


@pytest.fixture
def run_of(tmp_path):
    def run(name):
        row = next(row for row in families.table() if row.name == name)
        spec, config = sources.load("digits4x4").spec, measure.configured(row, "digits4x4", seed=0)
        experiment = recipes.build(config, spec)
        params, model_state = experiment.model.init(jax.random.key(0), {"x": np.zeros((8, *spec.shape), np.uint8)})
        for networks in params.values():
            # A posterior that the encoder does not know, so that the two ends differ.
            if "decoder" in networks:
                networks["decoder"] = jax.tree.map(lambda leaf: 3.0 * leaf, networks["decoder"])
        state = types.SimpleNamespace(eval_params=params, model_state=model_state)
        return row, types.SimpleNamespace(config=config, spec=spec, experiment=experiment), state

    return run


def test_the_interval_of_a_vae_holds_the_truth_of_the_small_world(run_of):
    row, run, state = run_of("VAE")
    log_q = row.log_prob_of_states(run.config, run.spec, state.eval_params)
    found = intervals.find(intervals.measure(run, state, log_q, settings={"step": 3}, seed=0))
    assert found.low.value < found.truth.value < found.high.value
    assert 0.05 < found.high.value - found.low.value < 2.0
    for one in found:
        assert (one.split, one.examples, one.measure) == ("samples", intervals.NUM_SAMPLES, "binary")
        assert one.settings["step"] == 3
    assert found.low.settings["by"] == "importance weights with the true latent"
    assert found.high.settings["by"] == "importance weights"


def test_the_draws_of_a_flow_between_its_levels_are_counted(run_of):
    _, run, state = run_of("NICE")
    found = intervals.find(intervals.measure(run, state, None, settings={}, seed=0))
    assert found.truth is None
    assert found.low.value < found.high.value
    assert 0 < found.low.examples == found.high.examples < intervals.NUM_SAMPLES


def test_other_families_have_no_interval_of_their_samples(run_of):
    _, run, state = run_of("MADE")
    assert intervals.measure(run, state, None, settings={}, seed=0) == []
