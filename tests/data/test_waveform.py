import numpy as np
import pytest

from gm_jax.data import sources, waveform
from gm_jax.errors import UserError


def test_the_source_has_levels_labels_and_one_axis_of_time():
    source = sources.load("wave:tones")
    assert source.spec.shape == (waveform.LENGTH,)
    assert (source.spec.levels, source.spec.num_classes) == (waveform.LEVELS, waveform.NUM_PITCHES)
    assert source.spec.measure == "64 levels"
    for split, count in waveform.NUM_EXAMPLES.items():
        x, label = source.splits[split]["x"], source.splits[split]["label"]
        assert (x.shape, x.dtype) == ((count, waveform.LENGTH), np.uint8)
        assert (label.shape, label.dtype) == ((count,), np.int32)
        assert x.max() < waveform.LEVELS
        assert set(label) == set(range(waveform.NUM_PITCHES))


def test_the_arrays_are_always_the_same_and_the_splits_differ():
    first, second = waveform.waveform_splits("wave:tones"), waveform.waveform_splits("tones")
    np.testing.assert_array_equal(first["train"]["x"], second["train"]["x"])
    assert (first["validation"]["x"] != first["test"]["x"]).any()


def test_the_masses_of_a_step_sum_to_one():
    np.testing.assert_allclose(np.exp(waveform._log_mass()).sum(-1), 1, atol=1e-12)
    assert np.isfinite(waveform._log_mass()).all()


def test_levels_are_as_frequent_as_their_probability():
    x = waveform.waveform_splits("wave:tones")["train"]["x"][:, 17]
    mass = np.exp(waveform._log_mass()[:, :, 17]).mean((0, 1))
    counts = np.bincount(x, minlength=waveform.LEVELS)
    # Chi-square over the frequent levels: its mean is 1 per degree of freedom, of which there are about 60.
    kept = mass * len(x) > 5
    statistic = (np.square(counts - len(x) * mass) / (len(x) * mass))[kept].sum()
    assert 0.4 < statistic / kept.sum() < 1.7


def test_a_true_wave_is_likelier_than_a_shuffled_one_and_matches_the_entropy():
    x = waveform.waveform_splits("wave:tones")["test"]["x"][:200]
    log_p = waveform.waveform_log_prob("wave:tones", x)
    shuffled = waveform.waveform_log_prob("wave:tones", np.random.default_rng(0).permuted(x, axis=1))
    assert (log_p > shuffled + 100).all()
    # Given pitch and phase the steps are independent: the sum of their entropies, plus at most log 256.
    mass = np.exp(waveform._log_mass())
    given = -(mass * np.log(mass)).sum((-1, -2)).mean()
    error = 4 * log_p.std() / np.sqrt(len(log_p))
    assert given - error < -log_p.mean() < given + np.log(256) + error


def test_the_exact_likelihood_of_the_test_split_is_the_documented_number():
    log_p = waveform.waveform_log_prob("wave:tones", waveform.waveform_splits("tones")["test"]["x"])
    assert -log_p.mean() == pytest.approx(634.7, abs=0.05)
    assert -log_p.mean() / (waveform.LENGTH * np.log(2)) == pytest.approx(3.58, abs=0.005)


def test_an_unknown_waveform_lists_the_known_ones():
    with pytest.raises(UserError, match="wave:tones"):
        sources.load("wave:noise")
