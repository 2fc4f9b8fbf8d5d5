"""Modes counted by hand and on samples of the mixture."""

import numpy as np
import pytest

from gm_jax.data import toy
from gm_jax.evaluation.mode_coverage import class_coverage, mode_coverage

MODES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_a_sample_counts_within_three_deviations_of_its_nearest_mode():
    samples = np.array([[0.0, 0.0], [0.0, 2.9], [0.0, 3.1], [10.0, -2.0], [4.9, 0.0]])
    assert mode_coverage(samples, MODES, 1.0) == (2, 3 / 5, 0.0, 1 / 5)
    assert mode_coverage(samples, MODES, 2.0) == (2, 1.0, 0.0, 2 / 5)
    assert mode_coverage(np.concatenate([samples, [[1.0, 10.0]]]), MODES, 1.0) == (3, 4 / 6, 1 / 6, 2 / 6)


def test_the_data_cover_their_modes_as_a_normal_predicts():
    means, std = toy.eight_gaussians_modes()
    found = mode_coverage(toy.toy_splits("toy:eight_gaussians")["test"]["x"], means, std)
    assert found.modes_covered == 8
    # 10,000 samples: five standard errors.
    assert abs(found.share_at_modes - (1 - np.exp(-4.5))) < 5 * 0.00105
    assert abs(found.share_of_rarest - 1 / 8) < 5 * 0.0033
    assert abs(found.share_within_std - (1 - np.exp(-0.5))) < 5 * 0.0049


def test_a_ring_without_modes_shows_in_the_share_within_one_deviation():
    means, std = toy.eight_gaussians_modes()
    rng = np.random.default_rng(0)
    angles, radii = rng.uniform(0, 2 * np.pi, 40_000), np.linalg.norm(means[0]) + std * rng.standard_normal(40_000)
    found = mode_coverage(radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1), means, std)
    assert found.modes_covered == 8
    assert abs(found.share_at_modes - 0.905) < 0.008
    assert abs(found.share_within_std - 0.176) < 0.01


def test_a_missing_mode_is_not_counted():
    means, std = toy.eight_gaussians_modes()
    split = toy.toy_splits("toy:eight_gaussians")["test"]
    assert mode_coverage(split["x"][split["label"] != 3], means, std).modes_covered == 7
    assert mode_coverage(means[:1], means, std) == (1, 1.0, 0.0, 1.0)


def test_wrong_shapes_are_refused():
    for samples in (np.zeros(2), np.zeros((4, 3)), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="need samples"):
            mode_coverage(samples, MODES, 1.0)


def log_probs(labels, num_classes, confidence=0.9):
    """Returns the rows of a classifier that predicts each label."""
    rows = np.full((len(labels), num_classes), (1 - confidence) / (num_classes - 1))
    rows[np.arange(len(labels)), labels] = confidence
    return np.log(rows)


def test_a_class_needs_a_tenth_of_its_share_in_the_data():
    real = log_probs(np.repeat([0, 1, 2, 3], [50, 30, 20, 0]), 4)
    # A tenth of their shares in the data is 0.05, 0.03 and 0.02. Class 3 has no data and does not count.
    assert class_coverage(real, real) == (3, 3)
    assert class_coverage(real, log_probs(np.repeat([0, 1, 2, 3], [95, 3, 2, 0]), 4)) == (3, 3)
    assert class_coverage(real, log_probs(np.repeat([0, 1, 2, 3], [96, 3, 1, 0]), 4)) == (2, 3)
    assert class_coverage(real, log_probs(np.repeat([0, 1, 2, 3], [4, 0, 0, 96]), 4)) == (0, 3)


def test_the_number_of_samples_may_differ_from_the_data():
    real = log_probs(np.repeat([0, 1], [990, 10]), 2)
    assert class_coverage(real, log_probs(np.array([0, 0, 0, 1]), 2)) == (2, 2)
    assert class_coverage(real, log_probs(np.zeros(7, int), 2)) == (1, 2)


def test_log_probabilities_of_other_shapes_are_refused():
    for generated in (np.zeros((5, 3)), np.zeros(2), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="need log-probabilities"):
            class_coverage(np.zeros((4, 2)), generated)
