import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import bijectors

B, H, W, C = 3, 2, 4, 6
BOUND = 2.0
PAIRS = {
    name: (getattr(bijectors, name), getattr(bijectors, f"{name}_inverse"))
    for name in ("additive_coupling", "affine_coupling", "scaling", "actnorm", "invertible_conv")
}
POINTS, IMAGES = (5,), (H, W, C)


def normals(seed, *shape):
    """Normal draws in the default float type: float64 under the fixture x64."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def random_factors(seed, channels):
    """Factors that differ from a rotation: every entry away from 0, both signs, noise in the unused triangles."""
    return bijectors.LUFactors(
        lower=0.5 * normals(seed, channels, channels),
        upper=0.5 * normals(seed + 1, channels, channels),
        log_abs_diagonal=0.5 * normals(seed + 2, channels) + 0.3,
        sign=jnp.asarray(np.where(np.arange(channels) % 3 == 0, -1.0, 1.0)),
        permutation=jnp.asarray(np.random.default_rng(seed).permutation(channels)),
    )


def bound_pair(name, event, **kwargs):
    """(forward, inverse) of one array, with random non-zero parameters."""
    parameters = {
        "additive_coupling": lambda: (normals(1, B, *event),),
        "affine_coupling": lambda: (normals(1, B, *event), 2.0 * normals(2, B, *event)),
        "scaling": lambda: (normals(1, *event),),
        "actnorm": lambda: (normals(1, event[-1]), normals(2, event[-1])),
        "invertible_conv": lambda: (random_factors(1, event[-1]),),
    }[name]()
    if name == "affine_coupling":
        kwargs["bound"] = BOUND
    return tuple(lambda x, fn=fn: fn(x, *parameters, **kwargs) for fn in PAIRS[name])


def squeeze_pair():
    no_log_det = jnp.zeros(B)
    return lambda x: (bijectors.squeeze(x), no_log_det), lambda z: (bijectors.unsqueeze(z), no_log_det)


CASES = {
    f"{name} of {what}": lambda name=name, event=event: (bound_pair(name, event), event)
    for name in PAIRS
    for what, event in (("points", POINTS), ("images", IMAGES))
} | {
    "affine_coupling by checkerboard": lambda: (
        bound_pair("affine_coupling", IMAGES, mask=bijectors.checkerboard_mask(H, W)),
        IMAGES,
    ),
    "additive_coupling by channels": lambda: (
        bound_pair("additive_coupling", IMAGES, mask=~bijectors.channel_mask(C)),
        IMAGES,
    ),
    "squeeze": lambda: (squeeze_pair(), IMAGES),
}
each_case = pytest.mark.parametrize("case", CASES)
VOLUME_PRESERVING = ("additive", "squeeze")


def slogdet_of_jacobian(fn, x):
    """[B] log |det| by autodiff; it requires independent examples."""
    y, _ = fn(x)
    jacobian = jax.jit(jax.jacfwd(lambda x: fn(x)[0]))(x).reshape(B, x[0].size, B, x[0].size)
    assert y[0].size == x[0].size
    blocks = [np.asarray(jacobian[b, :, b, :]) for b in range(B)]
    assert np.count_nonzero(jacobian) == sum(map(np.count_nonzero, blocks))
    return np.array([np.linalg.slogdet(block)[1] for block in blocks])


# Identities: the log-determinant equals that of the Jacobian, and the inverse inverts.


@each_case
def test_the_log_det_equals_that_of_the_jacobian(x64, case):
    (forward, _), event = CASES[case]()
    x = 2.0 * normals(0, B, *event)
    log_det = forward(x)[1]
    np.testing.assert_allclose(log_det, slogdet_of_jacobian(forward, x), rtol=0, atol=1e-8)
    assert np.all(log_det == 0.0) if case.startswith(VOLUME_PRESERVING) else np.all(np.abs(log_det) > 0.1)


@each_case
def test_the_log_det_of_the_inverse_equals_that_of_its_jacobian(x64, case):
    (forward, inverse), event = CASES[case]()
    z = 2.0 * normals(0, *forward(normals(0, B, *event))[0].shape)
    np.testing.assert_allclose(inverse(z)[1], slogdet_of_jacobian(inverse, z), rtol=0, atol=1e-8)


@each_case
def test_each_direction_undoes_the_other(x64, case):
    (forward, inverse), event = CASES[case]()
    x = 2.0 * normals(0, B, *event)
    z, log_det = forward(x)
    back, inverse_log_det = inverse(z)
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-8)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=0, atol=1e-8)
    np.testing.assert_allclose(forward(inverse(z + 1.0)[0])[0], z + 1.0, rtol=0, atol=1e-8)
    assert log_det.shape == inverse_log_det.shape == (B,)


@each_case
def test_the_inverse_is_accurate_in_single_precision(case):
    (forward, inverse), event = CASES[case]()
    x = normals(0, B, *event)
    assert x.dtype == jnp.float32
    z, log_det = forward(x)
    assert z.dtype == log_det.dtype == jnp.float32
    np.testing.assert_allclose(inverse(z)[0], x, rtol=0, atol=1e-4)


# Closed forms.


def test_an_additive_coupling_adds():
    x, shift = normals(0, B, *POINTS), normals(1, B, *POINTS)
    z, log_det = bijectors.additive_coupling(x, shift)
    np.testing.assert_array_equal(z, x + shift)
    np.testing.assert_array_equal(log_det, np.zeros(B))


def test_an_affine_coupling_is_the_float64_formula(x64):
    x, shift, raw = (normals(seed, B, *IMAGES) for seed in range(3))
    z, log_det = bijectors.affine_coupling(x, shift, raw, bound=BOUND)
    log_scale = BOUND * np.tanh(np.asarray(raw) / BOUND)
    np.testing.assert_allclose(z, np.asarray(x) * np.exp(log_scale) + np.asarray(shift), rtol=1e-12)
    np.testing.assert_allclose(log_det, log_scale.sum(axis=(1, 2, 3)), rtol=1e-12)


def test_a_scaling_adds_its_log_scales(x64):
    log_scale = normals(1, *IMAGES)
    x = normals(0, B, *IMAGES)
    z, log_det = bijectors.scaling(x, log_scale)
    np.testing.assert_allclose(z, np.asarray(x) * np.exp(np.asarray(log_scale)), rtol=1e-12)
    np.testing.assert_allclose(log_det, np.full(B, np.sum(np.asarray(log_scale))), rtol=1e-12)


def test_actnorm_standardises_each_channel_of_its_first_batch(x64):
    x = 3.0 * normals(0, 16, H, W, C) * jnp.exp(normals(1, 1, 1, 1, C)) + 5.0 * normals(2, 1, 1, 1, C)
    z, log_det = bijectors.actnorm(x, *bijectors.actnorm_from_batch(x))
    np.testing.assert_allclose(np.mean(z, axis=(0, 1, 2)), np.zeros(C), atol=1e-12)
    np.testing.assert_allclose(np.var(z, axis=(0, 1, 2)), np.ones(C), rtol=1e-12)
    log_std = np.log(np.std(x, axis=(0, 1, 2)))
    np.testing.assert_allclose(log_det, np.full(16, -H * W * log_std.sum()), rtol=1e-12)


def test_actnorm_only_centres_a_channel_that_does_not_vary():
    x = jnp.stack([jnp.full(16, 7.0), normals(0, 16)], axis=-1)
    shift, log_scale = bijectors.actnorm_from_batch(x)
    assert float(log_scale[0]) == 0.0
    np.testing.assert_array_equal(bijectors.actnorm(x, shift, log_scale)[0][:, 0], np.zeros(16))


def test_a_shared_scale_gives_variance_1_on_average_over_channels(x64):
    x = normals(0, 16, H, W, C) * jnp.exp(normals(1, 1, 1, 1, C)) + 5.0 * normals(2, 1, 1, 1, C)
    shift, log_scale = bijectors.actnorm_from_batch(x, shared_scale=True)
    z, _ = bijectors.actnorm(x, shift, log_scale)
    np.testing.assert_allclose(np.mean(z, axis=(0, 1, 2)), np.zeros(C), atol=1e-12)
    np.testing.assert_allclose(np.mean(np.var(z, axis=(0, 1, 2))), 1.0, rtol=1e-12)
    assert np.ptp(log_scale) == 0.0
    constant = jnp.full((16, C), 7.0)
    assert not np.any(bijectors.actnorm_from_batch(constant, shared_scale=True)[1])


@pytest.mark.parametrize("name", ["actnorm", "invertible_conv"])
def test_a_log_det_per_channel_counts_once_per_pixel(x64, name):
    forward, _ = bound_pair(name, (C,))
    _, of_one = forward(normals(0, B, C))
    _, of_many = forward(normals(0, B, H, W, C))
    np.testing.assert_allclose(of_many, H * W * np.asarray(of_one), rtol=1e-12)


def test_lu_factors_multiply_to_the_matrix(x64):
    matrix = normals(0, C, C)
    factors = bijectors.lu_factors(matrix)
    lower = np.tril(factors.lower, -1) + np.eye(C)
    upper = np.triu(factors.upper, 1) + np.diag(factors.sign * np.exp(factors.log_abs_diagonal))
    np.testing.assert_allclose((lower @ upper)[np.asarray(factors.permutation)], matrix, atol=1e-12)
    # Otherwise the test would not cover the permutation or a sign.
    assert np.any(np.asarray(factors.permutation) != np.arange(C))
    assert set(np.asarray(factors.sign)) == {-1.0, 1.0}


def test_an_invertible_conv_is_the_dense_matrix_at_every_pixel(x64):
    matrix = normals(0, C, C)
    x = normals(1, B, H, W, C)
    z, log_det = bijectors.invertible_conv(x, bijectors.lu_factors(matrix))
    np.testing.assert_allclose(z, np.einsum("oc,bhwc->bhwo", matrix, x), atol=1e-12)
    np.testing.assert_allclose(log_det, np.full(B, H * W * np.linalg.slogdet(np.asarray(matrix))[1]), rtol=1e-12)


def test_a_rotation_keeps_volume_and_length(x64):
    factors = bijectors.lu_factors(jax.random.orthogonal(jax.random.key(0), C))
    x = normals(0, B, H, W, C)
    z, log_det = bijectors.invertible_conv(x, factors)
    np.testing.assert_allclose(log_det, np.zeros(B), atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-12)


def test_the_other_triangles_of_the_factors_are_ignored():
    factors = random_factors(0, C)
    lower, upper = factors.lower, factors.upper
    garbage = factors._replace(lower=lower + 9.0 * jnp.triu(upper), upper=upper + 9.0 * jnp.tril(lower))
    x = normals(0, B, C)
    for fn in PAIRS["invertible_conv"]:
        np.testing.assert_array_equal(fn(x, garbage)[0], fn(x, factors)[0])


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("name", ["additive_coupling", "affine_coupling"])
def test_a_masked_entry_passes_unchanged_and_adds_nothing_to_the_log_det(name, direction):
    mask = jnp.broadcast_to(bijectors.checkerboard_mask(H, W), (B, *IMAGES))
    kwargs = {"bound": BOUND} if name == "affine_coupling" else {}
    x, *parameters = (normals(seed, B, *IMAGES) for seed in range(2 + len(kwargs)))
    fn = PAIRS[name][direction]
    z, log_det = fn(x, *parameters, mask=mask, **kwargs)
    unmasked, _ = fn(x, *parameters, **kwargs)
    np.testing.assert_array_equal(z, jnp.where(mask, unmasked, x))
    wild = [jnp.where(mask, parameter, jnp.nan) for parameter in parameters]
    np.testing.assert_array_equal(fn(x, *wild, mask=mask, **kwargs)[0], z)
    np.testing.assert_array_equal(fn(x, *wild, mask=mask, **kwargs)[1], log_det)


def test_a_channel_mask_is_the_coupling_of_halves():
    x, shift, raw = (normals(seed, B, *IMAGES) for seed in range(3))
    masked, masked_log_det = bijectors.affine_coupling(x, shift, raw, bound=BOUND, mask=bijectors.channel_mask(C))
    kept, transformed = jnp.split(x, 2, axis=-1)
    half, log_det = bijectors.affine_coupling(transformed, shift[..., C // 2 :], raw[..., C // 2 :], bound=BOUND)
    np.testing.assert_allclose(masked, jnp.concatenate([kept, half], axis=-1), rtol=1e-6)
    np.testing.assert_allclose(masked_log_det, log_det, rtol=1e-5, atol=1e-5)


def test_no_gradient_reaches_a_masked_parameter():
    x, shift, raw = (normals(seed, B, *POINTS) for seed in range(3))
    mask = (jnp.arange(POINTS[0]) % 2 == 0)[None]

    def total(shift, raw):
        z, log_det = bijectors.affine_coupling(x, shift, raw, bound=BOUND, mask=mask)
        return jnp.sum(z) + jnp.sum(log_det)

    for gradient in jax.grad(total, argnums=(0, 1))(shift, raw):
        np.testing.assert_array_equal(gradient != 0.0, jnp.broadcast_to(mask, gradient.shape))


# Extremes.


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("raw", [-1e30, -100.0, 100.0, 1e30])
def test_an_affine_coupling_is_finite_for_extreme_network_outputs(raw, direction):
    fn = PAIRS["affine_coupling"][direction]

    def total(x, shift, raw):
        z, log_det = fn(x, shift, raw, bound=BOUND)
        return jnp.sum(z) + jnp.sum(log_det)

    arguments = normals(0, B, *POINTS), normals(1, B, *POINTS), jnp.full((B, *POINTS), raw)
    value, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(*arguments)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    _, log_det = fn(*arguments, bound=BOUND)
    np.testing.assert_allclose(np.abs(log_det), np.full(B, BOUND * POINTS[0]), rtol=1e-6)


def test_a_bounded_log_scale_is_about_the_network_output_near_zero():
    zeros = jnp.zeros((B, *POINTS))
    slope = jax.grad(lambda raw: bijectors.affine_coupling(zeros, zeros, raw, bound=BOUND)[1].sum())(zeros)
    np.testing.assert_array_equal(slope, np.ones((B, *POINTS)))


@pytest.mark.parametrize(("mean", "std"), [(100.0, 0.01), (1e4, 1.0)])
def test_actnorm_standardises_a_narrow_batch_far_from_zero_in_float32(mean, std):
    x = mean + std * normals(0, 64, 3)
    shift, log_scale = bijectors.actnorm_from_batch(x)
    np.testing.assert_allclose(log_scale, -np.log(np.std(np.asarray(x, np.float64), axis=0)), atol=1e-4)
    z, _ = bijectors.actnorm(x, shift, log_scale)
    np.testing.assert_allclose(np.mean(z, axis=0), np.zeros(3), atol=2e-2)
    np.testing.assert_allclose(np.var(z, axis=0), np.ones(3), atol=2e-2)


@pytest.mark.parametrize("direction", [0, 1])
def test_an_invertible_conv_has_finite_gradients_far_from_a_rotation(direction):
    factors = random_factors(0, C)._replace(log_abs_diagonal=jnp.linspace(-20.0, 20.0, C))
    x = normals(0, B, C)

    def total(lower, upper, log_abs_diagonal):
        moved = factors._replace(lower=lower, upper=upper, log_abs_diagonal=log_abs_diagonal)
        z, log_det = PAIRS["invertible_conv"][direction](x, moved)
        return jnp.sum(z) + jnp.sum(log_det)

    value, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(*factors[:3])
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


# Shape contract.


@each_case
def test_jit_and_vmap_agree_with_the_plain_call(case):
    (forward, _), event = CASES[case]()
    xs = normals(0, 2, B, *event)
    plain = [forward(x) for x in xs]
    mapped = jax.jit(jax.vmap(forward))(xs)
    for got, expected in zip(mapped, zip(*plain, strict=True), strict=True):
        np.testing.assert_allclose(got, jnp.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", [0, 1])
def test_wrong_shapes_and_dtypes_are_refused(direction):
    additive, affine, scaling, actnorm, conv = (pair[direction] for pair in PAIRS.values())
    x, per_channel = normals(0, B, *IMAGES), normals(1, C)
    mask, factors = bijectors.checkerboard_mask(H, W), random_factors(0, C)
    refused = [
        lambda: additive(x, x[:1]),
        lambda: additive(x, x[..., :1]),
        lambda: additive(x[:, 0, 0, 0], x[:, 0, 0, 0]),
        lambda: additive(x, x.astype(jnp.int32)),
        lambda: additive(x, x, mask=mask.astype(jnp.float32)),
        lambda: additive(x, x, mask=mask[0]),
        lambda: additive(x, x, mask=bijectors.checkerboard_mask(W, H)),
        lambda: affine(x, x, x[:1], bound=BOUND),
        lambda: affine(x, x, x, bound=BOUND, mask=mask[0]),
        lambda: scaling(x, per_channel),
        lambda: scaling(x, x),
        lambda: actnorm(x, per_channel, per_channel[:1]),
        lambda: actnorm(x, per_channel[None], per_channel[None]),
        lambda: conv(x[..., :-1], factors),
        lambda: conv(x, factors._replace(permutation=factors.permutation.astype(jnp.float32))),
        lambda: conv(x, factors._replace(sign=factors.sign[None])),
    ]
    for call in refused:
        with pytest.raises(AssertionError):
            call()
    for bound in (0.0, -1.0):
        with pytest.raises(ValueError, match="bound"):
            affine(x, x, x, bound=bound)


def test_initial_parameters_need_a_batch_and_a_square_matrix():
    with pytest.raises(AssertionError):
        bijectors.actnorm_from_batch(jnp.zeros(3))
    with pytest.raises(AssertionError):
        bijectors.actnorm_from_batch(jnp.zeros((3, 2), jnp.uint8))
    with pytest.raises(AssertionError):
        bijectors.lu_factors(jnp.zeros((3, 2)))
