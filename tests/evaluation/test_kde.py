from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial, special, stats

from gm_jax.evaluation import kde

RNG = np.random.default_rng(0)


def floats(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape), jnp.float32)


def float64_log_density(points, centres, bandwidth):
    """Computes the formula for all N x M pairs at once."""
    (n_dims,) = points.shape[1:]
    squared = spatial.distance.cdist(np.asarray(points, np.float64), np.asarray(centres, np.float64), "sqeuclidean")
    log_sum = special.logsumexp(-squared / (2 * bandwidth**2), axis=1)
    return log_sum - np.log(len(centres)) - n_dims / 2 * np.log(2 * np.pi * bandwidth**2)


@pytest.mark.parametrize("bandwidth", [0.05, 0.3, 2.0])
def test_one_centre_is_the_normal_log_density(bandwidth):
    points, centre = floats(7, 3), floats(1, 3)
    expected = stats.multivariate_normal.logpdf(points, np.asarray(centre)[0], bandwidth**2 * np.eye(3))
    np.testing.assert_allclose(kde.log_density(points, centre, bandwidth), expected, rtol=1e-6, atol=1e-6)


# Fewer than a chunk, exactly one, more, a multiple, and one more than a multiple.
@pytest.mark.parametrize(("num_points", "num_centres"), [(3, 2), (4, 4), (9, 5), (8, 12), (1, 13)])
def test_any_division_into_chunks_gives_the_float64_formula(num_points, num_centres):
    points, centres = floats(num_points, 3), floats(num_centres, 3)
    measured = kde.log_density(points, centres, 0.4, chunk_size=4)
    np.testing.assert_allclose(measured, float64_log_density(points, centres, 0.4), rtol=1e-5, atol=1e-5)


def test_a_two_dimensional_estimate_integrates_to_one():
    centres = floats(50, 2)
    side = np.linspace(-6, 6, 121)
    grid = jnp.asarray(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), jnp.float32)
    mass = np.exp(np.asarray(kde.log_density(grid, centres, 0.3), np.float64)).sum() * (side[1] - side[0]) ** 2
    np.testing.assert_allclose(mass, 1.0, atol=1e-4)


def test_kernels_on_normal_samples_add_their_variance():
    # The expected estimate for centres from N(0, 1) is N(0, 1 + h^2); the error falls with the root of M.
    h, points = 0.5, jnp.linspace(-2.0, 2.0, 9)[:, None]
    measured = np.exp(np.asarray(kde.log_density(points, floats(20_000, 1), h, chunk_size=1000)))
    expected = stats.norm.pdf(np.asarray(points)[:, 0], scale=np.sqrt(1 + h**2))
    np.testing.assert_allclose(measured, expected, atol=6e-3)


def test_narrow_kernels_lose_no_digits_near_a_centre():
    # |x|^2 - 2 x c + |c|^2 would have an error of about 1e-3 here, which 1 / (2 h^2) multiplies by 1e5.
    centres = floats(20, 784) + 5.0
    points = centres[:4] + floats(4, 784, scale=1e-4)
    measured = kde.log_density(points, centres, 0.002)
    np.testing.assert_allclose(measured, float64_log_density(points, centres, 0.002), rtol=1e-6)


def test_the_log_density_is_finite_far_from_every_centre():
    points, centres = jnp.full((2, 4), 100.0), floats(5, 4)
    value, gradient = jax.value_and_grad(lambda points: kde.log_density(points, centres, 0.1).sum())(points)
    np.testing.assert_allclose(value, float64_log_density(points, centres, 0.1).sum(), rtol=1e-5)
    assert np.isfinite(gradient).all()


# Read from the compiled program. For the images, all distances would take 400 MB and all differences 300 GB; for the
# points, the distances from one chunk to all centres would take 512 MB.
@pytest.mark.parametrize(
    ("points", "centres"), [((10_000, 784), (10_000, 784)), ((1000, 2), (1_000_000, 2))], ids=["images", "points"]
)
def test_memory_holds_the_arrays_and_one_pair_of_chunks(points, centres):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (points, centres)]
    copies = sum(4 * np.prod(shape) for shape in (points, centres))  # padded to whole chunks
    for function, last in ((kde.log_density, ()), (kde.choose_bandwidth, (20,))):
        memory = function.lower(*shapes, jax.ShapeDtypeStruct(last, jnp.float32)).compile().memory_analysis()
        assert memory.temp_size_in_bytes < copies + 64 * 2**20


def test_the_chosen_bandwidth_is_the_best_of_the_grid():
    # For 200 centres from the same normal, the best bandwidth is neither tiny nor as wide as the data.
    validation, centres = floats(300, 2), floats(200, 2)
    grid = jnp.geomspace(0.02, 5.0, 15)
    choice = kde.choose_bandwidth(validation, centres, grid)
    expected = np.array([float64_log_density(validation, centres, float(h)).mean() for h in grid])
    np.testing.assert_allclose(choice.mean_log_density, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(choice.bandwidth, grid[int(expected.argmax())])
    assert 0.1 < float(choice.bandwidth) < 1.0
    assert bool(choice.bracketed)


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.05), (2.0, 5.0)])
def test_a_grid_without_the_optimum_is_not_bracketed(low, high):
    choice = kde.choose_bandwidth(floats(300, 2), floats(200, 2), jnp.linspace(low, high, 15))
    assert not bool(choice.bracketed)
    np.testing.assert_allclose(choice.bandwidth, high if high < 1 else low, rtol=1e-6)


def test_the_likelihood_is_an_estimate_with_its_number_of_centres():
    points, centres = floats(7, 3), floats(11, 3)
    likelihood = jax.jit(kde.likelihood)(points, centres, 0.3)
    assert (likelihood.kind, likelihood.settings) == ("estimate", (("centres", 11),))
    np.testing.assert_allclose(likelihood.log_prob, kde.log_density(points, centres, 0.3), rtol=1e-6)


def test_one_example_at_a_time_equals_the_whole_batch():
    points, centres = floats(7, 3), floats(11, 3)
    one = lambda x: kde.log_density(x[None], centres, 0.3, chunk_size=4)[0]  # noqa: E731
    np.testing.assert_allclose(jax.vmap(one)(points), kde.log_density(points, centres, 0.3), rtol=1e-5)


@pytest.mark.parametrize(
    ("points", "centres", "bandwidth"),
    [((5,), (6, 3), ()), ((5, 3), (3,), ()), ((5, 3), (6, 2), ()), ((5, 3), (6, 1), ()), ((5, 3), (6, 3), (1,))],
)
def test_shapes_that_do_not_match_are_refused(points, centres, bandwidth):
    with pytest.raises(AssertionError):
        kde.log_density(floats(*points), floats(*centres), jnp.ones(bandwidth))


def test_raw_levels_are_refused():
    levels = jnp.zeros((5, 3), jnp.uint8)
    for arguments in ((levels, floats(6, 3)), (floats(6, 3), levels)):
        with pytest.raises(AssertionError):
            kde.log_density(*arguments, 0.3)
    with pytest.raises(AssertionError):
        kde.choose_bandwidth(floats(5, 3), floats(6, 3), jnp.ones(()))


def test_the_bandwidth_is_traced_and_the_chunk_size_is_static():
    traced = jax.jit(partial(kde.log_density, chunk_size=4))
    points, centres = floats(7, 3), floats(11, 3)
    for bandwidth in (0.2, 0.4):
        expected = float64_log_density(points, centres, bandwidth)
        np.testing.assert_allclose(traced(points, centres, bandwidth), expected, rtol=1e-5, atol=1e-5)
