import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.evaluation import frechet

REPO = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)


def moments(features):
    """Computes the moments by their definition, in float64."""
    features = np.asarray(features, np.float64)
    centred = features - features.mean(axis=0)
    return frechet.Moments(np.float64(len(features)), features.mean(axis=0), centred.T @ centred)


def of_normal(mean, covariance, count=1000):
    return frechet.Moments(np.float64(count), np.asarray(mean, np.float64), np.asarray(covariance) * (count - 1.0))


def random_covariance(dim):
    root = RNG.normal(size=(dim, dim))
    return root @ root.T + 0.1 * np.eye(dim)


def assert_same(a, b, *, rtol):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


def test_the_distance_between_equal_statistics_is_zero():
    same = of_normal(RNG.normal(size=8), random_covariance(8))
    assert 0.0 <= frechet.frechet_distance(same, same) < 1e-10


def test_the_distance_to_a_shifted_mean_is_the_squared_shift():
    covariance, shift = random_covariance(8), RNG.normal(size=8)
    distance = frechet.frechet_distance(of_normal(np.zeros(8), covariance), of_normal(shift, covariance))
    np.testing.assert_allclose(distance, shift @ shift, rtol=1e-10)


def test_diagonal_covariances_compare_standard_deviations():
    a, b = RNG.uniform(0.1, 3.0, size=(2, 8))
    distance = frechet.frechet_distance(of_normal(np.zeros(8), np.diag(a)), of_normal(np.zeros(8), np.diag(b)))
    np.testing.assert_allclose(distance, np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rtol=1e-10)


def test_two_by_two_covariances_have_a_closed_form():
    # Tr (AB)^1/2 = sqrt(Tr AB + 2 sqrt(det AB)), here for matrices that do not commute.
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    expected = np.trace(a + b) - 2 * np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    distance = frechet.frechet_distance(of_normal(np.zeros(2), a), of_normal(np.zeros(2), b))
    np.testing.assert_allclose(distance, expected, rtol=1e-10)
    np.testing.assert_allclose(
        frechet.frechet_distance(of_normal(np.zeros(2), b), of_normal(np.zeros(2), a)), distance, rtol=1e-10
    )


def test_fewer_samples_than_features_warn_and_give_a_finite_distance():
    real, generated = moments(RNG.normal(size=(9, 40))), moments(RNG.normal(size=(12, 40)))
    with pytest.warns(UserWarning, match="9 real and 12 generated examples are too few for 40 features"):
        distance = frechet.frechet_distance(real, generated)
    # Two subspaces of few dimensions overlap little, so the traces dominate.
    assert np.isfinite(distance)
    assert 20.0 < distance < 120.0
    with pytest.warns(UserWarning, match="a covariance is singular"):
        assert frechet.frechet_distance(real, real) < 1e-10


def test_enough_samples_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet.frechet_distance(moments(RNG.normal(size=(9, 8))), moments(RNG.normal(size=(9, 8))))


def test_a_stream_with_padding_has_the_moments_of_the_whole():
    features = (RNG.normal(size=(23, 5)) + 100.0).astype(np.float32)
    streamed = frechet.no_moments(5)
    for start in (0, 10, 20):
        batch = features[start : start + 10]
        padding = 10 - len(batch)
        # The padding is far away, so that counting it would change every moment.
        padded = np.concatenate([batch, np.full((padding, 5), 1e4, np.float32)])
        streamed = frechet.add_batch(streamed, padded, np.arange(10) < len(batch))
    assert streamed.mean.dtype == np.float64
    assert_same(streamed, moments(features), rtol=1e-12)


def test_a_batch_without_a_mask_counts_every_row():
    features = RNG.normal(size=(7, 3)).astype(np.float32)
    assert_same(frechet.add_batch(frechet.no_moments(3), features), moments(features), rtol=1e-12)


def test_merging_gives_the_moments_of_both_and_empty_is_neutral(x64):
    features = RNG.normal(size=(11, 4)) + 3.0
    a, b = moments(features[:4]), moments(features[4:])
    assert_same(frechet.merge(a, b), moments(features), rtol=1e-12)
    assert_same(frechet.merge(frechet.no_moments(4), b), b, rtol=1e-14)
    assert_same(frechet.merge(a, frechet.no_moments(4)), a, rtol=1e-14)


def test_parts_summed_over_an_axis_equal_the_whole_batch(x64):
    features, mask = RNG.normal(size=(24, 4)), np.arange(24) < 17  # two of the eight parts are only padding
    per_part = partial(frechet.batch_moments, axis_name="parts")
    parts = jax.vmap(per_part, axis_name="parts", out_axes=None)(features.reshape(8, 3, 4), mask.reshape(8, 3))
    assert_same(parts, moments(features[:17]), rtol=1e-12)


EIGHT_DEVICES = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from gm_jax.evaluation import frechet
assert jax.device_count() == 8
features = np.random.default_rng(0).normal(size=(3, 32, 6)).astype(np.float32)
sharding = NamedSharding(Mesh(np.array(jax.devices()), "batch"), PartitionSpec("batch"))
one, eight = frechet.no_moments(6), frechet.no_moments(6)
for k, batch in enumerate(features):
    mask = np.arange(32) < (32 if k < 2 else 13)
    one = frechet.add_batch(one, batch, mask)
    placed = jax.device_put(batch, sharding), jax.device_put(mask, sharding)
    assert len(placed[0].sharding.device_set) == 8
    eight = frechet.add_batch(eight, *placed)
for a, b in zip(one, eight):
    np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
"""


def test_eight_devices_give_the_moments_of_one():
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES],
        **{"cwd": REPO, "capture_output": True, "text": True, "check": False, "env": {"PATH": "", **flags}},
    )
    assert done.returncode == 0, done.stderr


def test_moments_are_exact_where_float32_sums_would_fail():
    # The mean is a thousand standard deviations: a float32 sum of squares has no digit left for the variance.
    features = (RNG.normal(size=(500, 3)) + 1000.0).astype(np.float32)
    ours = frechet.add_batch(frechet.no_moments(3), features)
    np.testing.assert_allclose(np.cov(features.astype(np.float64).T), np.asarray(ours.scatter) / 499, rtol=1e-9)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_examples_are_refused(count):
    few = frechet.Moments(np.float64(count), np.zeros(3), np.zeros((3, 3)))
    with pytest.raises(UserError, match="at least two generated examples"):
        frechet.frechet_distance(of_normal(np.zeros(3), np.eye(3)), few)


def test_features_that_are_not_finite_are_refused():
    broken = moments(np.array([[1.0, np.nan], [0.0, 1.0], [1.0, 1.0]]))
    with pytest.raises(UserError, match="infinite or NaN"):
        frechet.frechet_distance(broken, of_normal(np.zeros(2), np.eye(2)))


def test_different_numbers_of_features_are_refused():
    with pytest.raises(ValueError, match="3 and 2 dimensions"):
        frechet.frechet_distance(of_normal(np.zeros(3), np.eye(3)), of_normal(np.zeros(2), np.eye(2)))


def test_a_wrong_rank_raises():
    with pytest.raises(AssertionError):
        frechet.batch_moments(jnp.zeros(3), jnp.ones(3, bool))
    with pytest.raises(AssertionError):
        frechet.batch_moments(jnp.zeros((3, 2)), jnp.ones(2, bool))


def test_arrays_in_place_of_moments_are_refused_with_the_way_to_do_it():
    with pytest.raises(TypeError, match="takes moments of features: add_batch"):
        frechet.frechet_distance(np.zeros((5, 3)), np.zeros((5, 3)))
