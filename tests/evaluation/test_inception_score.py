import numpy as np
import pytest
from scipy import special

from gm_jax.errors import UserError
from gm_jax.evaluation.inception_score import inception_score

RNG = np.random.default_rng(0)


def one_hot(labels, num_classes):
    with np.errstate(divide="ignore"):
        return np.log(np.eye(num_classes)[labels])


def test_certain_and_evenly_used_classes_score_their_number():
    # One split, so that the shuffle leaves each class with exactly 40 samples.
    score = inception_score(one_hot(np.arange(200) % 5, 5), num_splits=1)
    np.testing.assert_allclose(score.mean, 5.0, rtol=1e-12)


def test_identical_rows_score_one():
    row = special.log_softmax(RNG.normal(size=7))
    score = inception_score(np.tile(row, (50, 1)), num_splits=5)
    np.testing.assert_allclose(score.mean, 1.0, rtol=1e-12)
    assert score.standard_deviation < 1e-12


def test_a_score_by_hand():
    # One certain row and one even row of two classes: p(y) = (3/4, 1/4).
    log_probs = np.array([[0.0, -np.inf], [np.log(0.5), np.log(0.5)]])
    divergences = [np.log(1 / 0.75), 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)]
    np.testing.assert_allclose(inception_score(log_probs, num_splits=1).mean, np.exp(np.mean(divergences)), rtol=1e-12)


def test_rows_sorted_by_class_score_the_same_as_shuffled_rows():
    sorted_rows = one_hot(np.repeat(np.arange(10), 200), 10)
    shuffled = sorted_rows[RNG.permutation(2000)]
    scores = [inception_score(rows, num_splits=10) for rows in (sorted_rows, shuffled)]
    for score in scores:
        np.testing.assert_allclose(score.mean, 10.0, rtol=0.03)  # unshuffled, each split would score 1
    # Equal up to the randomness of the shuffle.
    np.testing.assert_allclose(scores[0].mean, scores[1].mean, rtol=0.02)


def test_every_example_counts_if_the_split_sizes_differ():
    score = inception_score(one_hot(np.arange(23) % 3, 3), num_splits=4)
    assert (score.num_examples, score.num_splits) == (23, 4)
    # One row that differs changes the score in any position.
    rows = np.tile(special.log_softmax([5.0, 0.0]), (23, 1))
    for place in range(23):
        odd = rows.copy()
        odd[place] = odd[place][::-1]
        assert inception_score(odd, num_splits=4).mean > 1.01


def test_the_standard_deviation_is_over_splits():
    log_probs = special.log_softmax(3.0 * RNG.normal(size=(60, 4)), axis=1)
    order = np.random.default_rng(7).permutation(60)
    parts = np.split(np.exp(log_probs[order]), 3)
    scores = [np.exp(np.mean(np.sum(p * np.log(p / p.mean(0, keepdims=True)), axis=1))) for p in parts]
    score = inception_score(log_probs, num_splits=3, seed=7)
    np.testing.assert_allclose((score.mean, score.standard_deviation), (np.mean(scores), np.std(scores)), rtol=1e-12)


def test_probabilities_of_zero_are_finite():
    log_probs = one_hot(np.zeros(20, int), 3)  # two classes are unused
    score = inception_score(log_probs, num_splits=2)
    np.testing.assert_allclose(score.mean, 1.0, rtol=1e-12)


def test_rows_that_are_not_log_probabilities_are_refused():
    with pytest.raises(UserError, match="do not sum to 1"):
        inception_score(RNG.normal(size=(20, 3)), num_splits=2)
    with pytest.raises(UserError, match="19 samples are too few for 10 splits"):
        inception_score(one_hot(np.zeros(19, int), 3), num_splits=10)
    with pytest.raises(ValueError, match=r"\[N, K\]"):
        inception_score(np.zeros(5), num_splits=1)


def test_a_single_split_has_no_standard_deviation():
    rows = special.log_softmax(RNG.normal(size=(20, 3)), axis=1)
    assert inception_score(rows, num_splits=1).standard_deviation is None
    assert inception_score(rows, num_splits=2).standard_deviation > 0.0
