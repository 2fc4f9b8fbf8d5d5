"""Modes counted by hand, and on the mixture itself."""

import numpy as np
import pytest

from gm_jax.data import toy
from gm_jax.evaluation.mode_coverage import mode_coverage

MODES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_samples_are_counted_at_the_nearest_mode_within_three_deviations():
    samples = np.array([[0.0, 0.0], [0.0, 2.9], [0.0, 3.1], [10.0, -2.0], [4.9, 0.0]])
    assert mode_coverage(samples, MODES, 1.0) == (2, 3 / 5, 0.0)
    assert mode_coverage(samples, MODES, 2.0) == (2, 1.0, 0.0)
    assert mode_coverage(np.concatenate([samples, [[1.0, 10.0]]]), MODES, 1.0) == (3, 4 / 6, 1 / 6)


def test_the_data_cover_their_own_modes_as_often_as_the_normal_says():
    means, std = toy.eight_gaussians_modes()
    found = mode_coverage(toy.toy_splits("toy:eight_gaussians")["test"]["x"], means, std)
    assert found.modes_covered == 8
    # 10,000 samples: five standard errors.
    assert abs(found.share_at_modes - (1 - np.exp(-4.5))) < 5 * 0.00105
    assert abs(found.share_of_rarest - 1 / 8) < 5 * 0.0033


def test_one_mode_missing_is_one_less():
    means, std = toy.eight_gaussians_modes()
    split = toy.toy_splits("toy:eight_gaussians")["test"]
    assert mode_coverage(split["x"][split["label"] != 3], means, std).modes_covered == 7
    assert mode_coverage(means[:1], means, std) == (1, 1.0, 0.0)


def test_wrong_shapes_are_refused():
    for samples in (np.zeros(2), np.zeros((4, 3)), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="need samples"):
            mode_coverage(samples, MODES, 1.0)
