import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.evaluation import kernel_distance as kernel

RNG = np.random.default_rng(0)


def by_definition(real, generated):
    """Computes every pair separately."""
    k = lambda a, b: (np.dot(a, b) / len(a) + 1.0) ** 3  # noqa: E731
    within = [
        np.mean([k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (real, generated)
    ]
    return sum(within) - 2.0 * np.mean([k(f, g) for f in real for g in generated])


def test_the_distance_equals_its_definition_pair_by_pair():
    real, generated = RNG.normal(size=(7, 3)), RNG.normal(size=(5, 3)) + 1.0
    np.testing.assert_allclose(kernel.kernel_distance(real, generated), by_definition(real, generated), rtol=1e-12)


def test_two_points_by_hand():
    # k(1, 1) = 8 for every pair of ones and k(0, .) = 1, so 8 + 1 - 2 * 1.
    np.testing.assert_allclose(kernel.kernel_distance(np.ones((2, 1)), np.zeros((2, 1))), 7.0, rtol=1e-12)


def test_chunks_give_the_same_distance(monkeypatch):
    real, generated = RNG.normal(size=(25, 3)), RNG.normal(size=(21, 3))
    whole = kernel.kernel_distance(real, generated)
    monkeypatch.setattr(kernel, "_CHUNK", 4)
    np.testing.assert_allclose(kernel.kernel_distance(real, generated), whole, rtol=1e-12)


def test_equal_distributions_have_mean_zero_for_any_numbers_of_samples():
    for n, m in ((5, 5), (4, 12)):
        draws = [kernel.kernel_distance(RNG.normal(size=(n, 4)), RNG.normal(size=(m, 4))) for _ in range(4000)]
        error = np.std(draws) / np.sqrt(len(draws))
        assert abs(np.mean(draws)) < 4 * error
        # The biased estimate includes the kernel of each example with itself; its error would be many times larger.
        itself = np.mean([(np.sum(x**2) / 4 + 1) ** 3 for x in RNG.normal(size=(1000, 4))]) / n
        assert itself > 8 * error


def test_the_mean_over_subsets_estimates_the_whole():
    real, generated = RNG.normal(size=(200, 4)), RNG.normal(size=(200, 4)) + 0.5
    whole = kernel.kernel_distance(real, generated)
    subsets = kernel.subset_kernel_distance(real, generated, num_subsets=200, subset_size=40)
    error = subsets.standard_deviation / np.sqrt(200)
    assert error > 0
    np.testing.assert_allclose(subsets.mean, whole, atol=4 * error)
    assert (subsets.num_subsets, subsets.subset_size) == (200, 40)


def test_a_subset_of_all_examples_equals_the_whole():
    real, generated = RNG.normal(size=(20, 4)), RNG.normal(size=(20, 4))
    one = kernel.subset_kernel_distance(real, generated, num_subsets=1, subset_size=20)
    np.testing.assert_allclose(one.mean, kernel.kernel_distance(real, generated), rtol=1e-10)
    assert one.standard_deviation is None


def test_subsets_that_are_the_whole_set_have_no_standard_deviation():
    small, large = RNG.normal(size=(20, 4)), RNG.normal(size=(30, 4))
    for sets in ((small, small), (small, large), (large, small)):
        assert kernel.subset_kernel_distance(*sets, num_subsets=5, subset_size=20).standard_deviation is None
    assert kernel.subset_kernel_distance(small, large, num_subsets=5, subset_size=19).standard_deviation > 0.0


def test_bad_input_is_refused():
    good = RNG.normal(size=(4, 3))
    with pytest.raises(UserError, match="at least two examples"):
        kernel.kernel_distance(good, good[:1])
    with pytest.raises(UserError, match="infinite or NaN"):
        kernel.kernel_distance(good, good * np.inf)
    with pytest.raises(UserError, match="from 2 to 4"):
        kernel.subset_kernel_distance(good, good, subset_size=5)
    with pytest.raises(ValueError, match="3 and 2 dimensions"):
        kernel.kernel_distance(good, good[:, :2])
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        kernel.kernel_distance(good[0], good)
