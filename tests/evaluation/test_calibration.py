"""Accuracy and calibration error of classifiers whose errors are known."""

import numpy as np
import pytest

from gm_jax.evaluation import calibration


def sure(confidence, classes):
    """[N, 3] log-probabilities: each example is `confidence` sure of its class."""
    confidence = np.broadcast_to(confidence, len(classes))
    probs = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    probs[np.arange(len(classes)), classes] = confidence
    return np.log(probs)


def test_a_classifier_that_is_as_sure_as_it_is_right_has_no_error():
    predicted = np.arange(10) % 3
    labels = np.where(np.arange(10) < 8, predicted, (predicted + 1) % 3)
    log_probs = sure(0.8, predicted)
    assert calibration.accuracy(log_probs, labels) == 0.8
    assert calibration.expected_calibration_error(log_probs, labels) == pytest.approx(0.0, abs=1e-12)


def test_each_bin_counts_with_its_share_of_the_examples():
    # By hand: 6 examples, 0.95 sure, 3 right: |0.5 - 0.95| * 6/8. 2 examples, 0.55 sure, both right: 0.45 * 2/8.
    predicted = np.zeros(8, int)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    log_probs = sure(np.array([0.95] * 6 + [0.55] * 2), predicted)
    assert calibration.expected_calibration_error(log_probs, labels) == pytest.approx(0.45, abs=1e-12)
    # In one bin, errors of opposite signs cancel: |5/8 - 0.85|.
    assert calibration.expected_calibration_error(log_probs, labels, num_bins=1) == pytest.approx(0.225, abs=1e-12)


def test_a_random_classifier_that_states_its_probabilities_is_calibrated_and_a_bolder_one_is_not():
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(50_000, 5))
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    labels = np.array([rng.choice(5, p=p) for p in np.exp(log_probs)])
    assert calibration.expected_calibration_error(log_probs, labels) < 0.01
    bold = 3.0 * logits - np.log(np.exp(3.0 * logits).sum(axis=1, keepdims=True))
    assert calibration.accuracy(bold, labels) == calibration.accuracy(log_probs, labels)
    assert 0.1 < calibration.expected_calibration_error(bold, labels) < 0.4


def test_certainty_falls_into_the_last_bin_and_shapes_are_checked():
    log_probs = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    assert calibration.expected_calibration_error(log_probs, np.array([0, 1])) == pytest.approx(0.5)
    for labels in (np.zeros(0, int), np.zeros(3, int)):
        with pytest.raises(ValueError, match="log-probabilities"):
            calibration.accuracy(log_probs[: len(labels)] if len(labels) == 0 else log_probs, labels)
