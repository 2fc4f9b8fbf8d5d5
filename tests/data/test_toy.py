"""The toy densities: each log-density integrates to one and matches its sampler."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from gm_jax.data import toy
from gm_jax.errors import UserError

NAMES = sorted(toy.TOYS)
CELLS = 24  # per side of the histogram over [-6, 6]^2; the lines include those of the checkerboard


def grid(per_side, half_width=6.0):
    """Midpoints [per_side^2, 2] of a square grid over [-half_width, half_width]^2, and the area of a cell."""
    edge = 2 * half_width / per_side
    axis = -half_width + edge * (np.arange(per_side) + 0.5)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), edge**2


@pytest.mark.parametrize("name", NAMES)
def test_the_density_integrates_to_one(name):
    points, area = grid(480)
    np.testing.assert_allclose(np.exp(toy.toy_log_density(name)(points)).sum() * area, 1.0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_sampler_draws_from_the_density(name):
    points, area = grid(20 * CELLS)
    density = np.exp(toy.toy_log_density(name)(points)).reshape(CELLS, 20, CELLS, 20)
    x = toy.toy_splits(name)["train"]["x"]
    expected = density.sum(axis=(1, 3)).ravel() * area * len(x)
    edges = np.linspace(-6, 6, CELLS + 1)
    observed = np.histogram2d(x[:, 0], x[:, 1], bins=(edges, edges))[0].ravel()
    filled = expected >= 10
    rest = [observed[~filled].sum() + len(x) - observed.sum()], [expected[~filled].sum() + len(x) - expected.sum()]
    observed, expected = observed[filled], expected[filled]
    if rest[1][0] >= 5:
        observed, expected = np.append(observed, rest[0]), np.append(expected, rest[1])
    else:
        assert rest[0][0] <= 20
    statistic = np.sum((observed - expected) ** 2 / expected)
    assert 1e-3 < scipy.stats.chi2.sf(statistic, len(observed) - 1) < 1 - 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_entropy_by_quadrature_is_the_mean_over_samples(name):
    points, area = grid(480)
    log_density = toy.toy_log_density(name)
    values = log_density(points)
    entropy = -np.sum(np.where(np.isfinite(values), np.exp(values) * np.maximum(values, -1e3), 0)) * area
    draws = -log_density(toy.toy_splits(name)["train"]["x"])
    assert abs(draws.mean() - entropy) < 4 * draws.std() / np.sqrt(len(draws)) + 1e-5


def test_eight_gaussians_is_the_mixture_that_scipy_computes():
    points = np.random.default_rng(0).uniform(-5, 5, (200, 2))
    angles = np.arange(8) * np.pi / 4
    means = np.sqrt(8) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    densities = [scipy.stats.multivariate_normal(mean, np.eye(2) / 8).pdf(points) for mean in means]
    np.testing.assert_allclose(toy.toy_log_density("eight_gaussians")(points), np.log(np.mean(densities, axis=0)))


def test_checkerboard_is_uniform_on_its_cells_and_zero_elsewhere():
    points = np.array([[-3.0, -3.0], [-1.0, -3.0], [-1.0, -1.0], [3.0, 3.0], [3.0, 1.0], [5.0, 5.0], [-4.0, -4.0]])
    log_density = toy.toy_log_density("checkerboard")(points)
    flat = -np.log(32)
    np.testing.assert_allclose(log_density, [flat, -np.inf, flat, flat, -np.inf, -np.inf, flat])


@pytest.mark.parametrize("split", sorted(toy.NUM_EXAMPLES))
def test_no_checkerboard_point_lies_where_the_density_is_zero(split):
    x = toy.toy_splits("checkerboard")[split]["x"]
    assert np.isfinite(toy.toy_log_density("checkerboard")(x)).all()


def test_two_moons_agrees_with_adaptive_quadrature():
    points = np.random.default_rng(0).uniform(-4, 4, (20, 2))

    def integrand(t, point, sign):
        centre = sign * np.array([2 * np.cos(t) - 1, 2 * np.sin(t) - 0.5])
        return np.exp(-np.sum((point - centre) ** 2) / (2 * 0.04)) / (2 * np.pi * 0.04) / (2 * np.pi)

    def density(point):
        options = {"limit": 500, "points": np.linspace(0, np.pi, 20), "epsabs": 0, "epsrel": 1e-12}
        return sum(scipy.integrate.quad(integrand, 0, np.pi, (point, sign), **options)[0] for sign in (1, -1))

    expected = np.log([density(point) for point in points])
    np.testing.assert_allclose(toy.toy_log_density("two_moons")(points), expected, rtol=1e-9)


def test_one_moon_is_minus_the_other():
    log_density = toy.toy_log_density("two_moons")
    points = np.random.default_rng(0).uniform(-4, 4, (100, 2))
    np.testing.assert_allclose(log_density(points), log_density(-points), rtol=1e-12)


def test_pinwheel_has_five_equal_arms():
    log_density = toy.toy_log_density("pinwheel")
    points = np.random.default_rng(0).uniform(-4, 4, (100, 2))
    cos, sin = np.cos(2 * np.pi / 5), np.sin(2 * np.pi / 5)
    np.testing.assert_allclose(log_density(points @ np.array([[cos, sin], [-sin, cos]])), log_density(points))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "checkerboard"])
def test_the_log_density_is_finite_far_away(name):
    assert np.isfinite(toy.toy_log_density(name)(np.array([[1e2, -1e2], [1e4, 0.0]]))).all()


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_the_modes_and_equally_frequent(name):
    label = toy.toy_splits(name)["train"]["label"]
    counts = np.bincount(label)
    assert len(counts) == toy.TOYS[name].num_modes
    assert 1e-3 < scipy.stats.chisquare(counts).pvalue <= 1


def test_labels_name_the_moon_arm_gaussian_or_cell_of_a_point():
    def sides(name):
        train = toy.toy_splits(name)["train"]
        return train["x"].astype(np.float64), train["label"]

    x, label = sides("eight_gaussians")
    np.testing.assert_allclose([x[label == 2].mean(0), x[label == 4].mean(0)], [[0, 8**0.5], [-(8**0.5), 0]], atol=0.03)
    x, label = sides("two_moons")
    expected = np.array([-1, 4 / np.pi - 0.5])  # the mean of the upper arc
    np.testing.assert_allclose([x[label == 0].mean(0), x[label == 1].mean(0)], [expected, -expected], atol=0.05)
    x, label = sides("checkerboard")
    for mode in range(8):
        assert len(np.unique(np.floor(x[label == mode] / 2), axis=0)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_splits_have_their_sizes_and_types_and_differ(name):
    splits = toy.toy_splits(name)
    assert {split: len(arrays["x"]) for split, arrays in splits.items()} == toy.NUM_EXAMPLES
    for arrays in splits.values():
        assert arrays["x"].shape[1:] == (2,)
        assert arrays["x"].dtype == np.float32
        assert arrays["label"].dtype == np.int32
    assert not np.array_equal(splits["validation"]["x"], splits["test"]["x"])
    assert not np.array_equal(splits["validation"]["x"], splits["train"]["x"][:10_000])


def test_the_entropy_of_the_checkerboard_is_the_log_of_its_area():
    np.testing.assert_allclose(toy.toy_entropy("toy:checkerboard"), np.log(32.0), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_entropy_is_the_mean_over_the_sampled_points(name):
    x = np.concatenate([arrays["x"] for arrays in toy.toy_splits(name).values()])
    log_density = toy.toy_log_density(name)(x)
    tolerance = 4 * log_density.std() / len(x) ** 0.5 + 1e-9
    np.testing.assert_allclose(toy.toy_entropy(name), -log_density.mean(), rtol=0, atol=tolerance)


def test_points_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[N, 2\]"):
        toy.toy_log_density("pinwheel")(np.zeros(2))


def test_no_points_have_no_densities():
    for name in NAMES:
        assert toy.toy_log_density(name)(np.zeros((0, 2))).shape == (0,)


def test_an_unknown_toy_is_a_user_error():
    with pytest.raises(UserError, match=r"no toy density 'toy:moons'.*two_moons"):
        toy.toy_log_density("toy:moons")
