"""The interval of a mean -log p: found among records, and around the truth in the exact small world."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax import recipes
from gm_jax.comparison import families, intervals, measure
from gm_jax.data import sources
from gm_jax.evaluation.results import Record
from gm_jax.models import bidirectional


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
    assert intervals.find([low._replace(value=2.1), high]) is None
    # Two bounds on the same side are no interval.
    assert intervals.find([low._replace(kind="lower_bound"), high]) is None
    ends = record("nll_of_samples", "upper_bound"), record("nll_of_samples", "lower_bound")
    truth = record("nll_of_samples", "exact")
    assert intervals.find([record("nll", "lower_bound"), *ends, truth]) == (*ends, truth)


def test_the_bound_of_a_generator_and_a_quadrature_are_two_ends():
    low = record("nll", "upper_bound", 2.8, by="entropy of the generator")
    high = record("nll_with_computed_log_z", "estimate", 2.9, by="quadrature", cells=160_000)
    assert intervals.find([low, high]) == (low, high, None)
    # An estimate from annealed chains bounds nothing, and neither does the number with a learned log Z.
    assert intervals.find([low, high._replace(settings={"by": "annealed chains"})]) is None
    assert intervals.find([low._replace(kind="estimate"), high]) is None


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_interval_of_a_flow_holds_the_truth_of_the_small_world(run_of):
    _, run, state = run_of("NICE")
    family = run.experiment.family
    ends = bidirectional.ends(family, state.eval_params, state.model_state, jax.random.key(0), 300, num_samples=2)
    # Importance weights are unbiased: with 2,000 of them, the log of their mean is the truth to a few thousandths.
    many = jax.jit(
        lambda key: jax.lax.map(
            lambda key: family.log_prob(state.eval_params, state.model_state, key, ends.x).log_prob,
            jax.random.split(key, 2_000),
        )
    )(jax.random.key(1))
    truth = special.logsumexp(np.asarray(many, np.float64), axis=0) - np.log(2_000)
    counted = np.asarray(ends.is_counted)
    low, high = (np.asarray(one.log_prob)[counted] - truth[counted] for one in (ends.low, ends.high))
    assert counted.sum() > 50
    assert low.mean() < -3 * low.std() / np.sqrt(counted.sum()) < 0
    assert high.mean() > 3 * high.std() / np.sqrt(counted.sum())


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_interval_of_a_restricted_boltzmann_machine_holds_the_truth_of_the_small_world(run_of, scale):
    _, run, state = run_of("RBM")
    experiment, x = run.experiment, jnp.asarray(sources.load("digits4x4").splits["validation"]["x"][:200])
    params = jax.tree.map(lambda leaf: scale * leaf, state.eval_params)
    model_state, notes = jax.jit(experiment.prepare_evaluation)(params, state.model_state, jax.random.key(0), x)
    ways = {"exact": experiment.model.log_prob, **{one.name: one.log_prob for one in experiment.evaluations}}
    found = {name: way(params, model_state, jax.random.key(0), x) for name, way in ways.items()}
    nll = {name: -float(jnp.mean(one.log_prob)) for name, one in found.items()}
    assert found["exact"].kind == "exact"
    assert nll["nll_at_low_log_z"] < nll["exact"] < nll["nll_at_high_log_z"]
    assert nll["nll_at_high_log_z"] - nll["nll_at_low_log_z"] < 0.5
    assert abs(nll["nll_with_annealed_log_z"] - nll["exact"]) < 4 * float(notes["log_z_standard_error"]) + 1e-4


def test_other_families_have_no_interval_of_their_samples(run_of):
    _, run, state = run_of("MADE")
    assert intervals.measure(run, state, None, settings={}, seed=0) == []
