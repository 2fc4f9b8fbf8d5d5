from functools import partial

import jax
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks import realnvp
from gm_jax.networks.conditioners import ResNetConditioner
from gm_jax.networks.couplings import Squeeze, affine
from gm_jax.networks.realnvp import ImageRealNVP, MultiScale, RealNVP


@pytest.mark.parametrize("dim", [2, 5])
def test_log_determinants_of_points_equal_autodiff_and_both_directions_are_inverse(check_flow, dim):
    assert np.ptp(check_flow(RealNVP((dim,), (6,), 2), (dim,)).log_det) > 1e-3


@pytest.mark.parametrize(("shape", "scales"), [pytest.param((4, 8, 3), 3, marks=pytest.mark.slow), ((3, 3, 1), 1)])
def test_log_determinants_of_images_equal_autodiff_and_both_directions_are_inverse(check_flow, shape, scales):
    found = check_flow(ImageRealNVP(shape, scales, features=3, blocks=1), shape, scale=0.1)
    assert found.z.shape == (3, np.prod(shape))
    assert np.ptp(found.log_det) > 1e-3


@pytest.mark.parametrize(
    "module",
    [RealNVP((2,), (4,), 32), ImageRealNVP((8, 8, 1), scales=3, features=8, blocks=1)],
    ids=["64 couplings of the plane", "three scales of images"],
)
def test_deep_chains_are_invertible_in_float32(check_deep_chain, module):
    check_deep_chain(module, module.event_shape, scale=0.1)


def test_a_pixel_black_in_the_first_batch_may_be_lit_later(distance_of_a_lit_pixel):
    assert 1.0 < distance_of_a_lit_pixel(RealNVP((4, 4, 1), (4,), 8)) < 5.0


def test_each_column_of_a_table_has_its_own_unit():
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32) * [[1.0, 1e-3, 1e3]]
    module = RealNVP((3,), (4,), 2)
    variables = module.init(jax.random.key(0), x.astype(np.float32), method="forward")
    z, _ = module.apply(variables, x.astype(np.float32), method="forward")
    np.testing.assert_allclose(np.var(z, axis=0), np.ones(3), rtol=1e-3)


def test_a_constant_log_scale_on_three_dimensions_adds_up_in_the_log_determinant(random_variables, x64):
    x = np.random.default_rng(0).normal(size=(4, 6))
    module = RealNVP((6,), (5,), 1, bound=2.0)
    variables = random_variables(module, x, scale=0.0)
    np.testing.assert_array_equal(module.apply(variables, x, method="forward")[1], np.zeros(4))
    last = variables["params"]["layers"]["layer"]["layers_0"]["network"]["Dense_1"]["bias"]
    last[:, 3:] = 2.0 * np.arctanh(0.7 / 2.0)  # shifts first, then raw log-scales, which the bound maps to 0.7
    z, log_det = module.apply(variables, x, method="forward")
    np.testing.assert_allclose(log_det, np.full(4, 3 * 0.7), rtol=1e-12)
    np.testing.assert_allclose(z, x * np.exp([[0, 0, 0, 0.7, 0.7, 0.7]]), rtol=1e-12)


@pytest.mark.parametrize("mask_fn", [realnvp.checkerboard, realnvp.channel_halves])
def test_masked_couplings_transform_one_half_and_then_the_other(random_variables, x64, mask_fn):
    x = np.random.default_rng(0).normal(size=(1, 3, 3, 2))
    conditioner = partial(ResNetConditioner, features=3, blocks=1)
    moved = []
    for length in (1, 2):
        module = realnvp.AlternatingCouplings(mask_fn, 2, length, affine(bound=2.0), conditioner)
        variables = random_variables(module, x)
        actnorm = variables["params"]["couplings"]["layer"]["actnorm"]
        actnorm.update({name: np.zeros_like(leaf) for name, leaf in actnorm.items()})
        moved.append(np.asarray(module.apply(variables, x, method="forward")[0]) != x)
    np.testing.assert_array_equal(moved[0], np.broadcast_to(mask_fn(x), x.shape))
    assert moved[1].all()


def test_images_have_the_couplings_of_the_paper():
    # Section 3.6: three with checkerboards, a squeeze, three by channels; the last scale has four with checkerboards.
    first, last = ImageRealNVP((8, 8, 1), scales=2, features=2, blocks=1).bind({}).multi_scale.stages
    before, squeeze, after = first.layers
    assert isinstance(squeeze, Squeeze)
    couplings = [(part.mask_fn, part.length) for part in (before, after, last)]
    assert couplings == [(realnvp.checkerboard, 3), (realnvp.channel_halves, 3), (realnvp.checkerboard, 4)]


def test_each_scale_factors_out_half_of_its_channels():
    x = np.arange(64.0, dtype=np.float32).reshape(1, 8, 8, 1)
    stages = [Squeeze(), Squeeze(), Squeeze()]
    shapes = realnvp.squeezed_shapes((8, 8, 1), 3)
    assert shapes == [(4, 4, 4), (2, 2, 8), (1, 1, 16)]
    module = MultiScale(stages, shapes)
    z, log_det = module.apply({}, x, method="forward")
    # The first squeeze factors out channels 2 and 3, the odd rows.
    assert set(z[0, :32].tolist()) == set(x[0, 1::2].reshape(-1).tolist())
    assert sorted(z[0].tolist()) == list(range(64))
    back, _ = module.apply({}, z, method="inverse")
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(log_det, [0.0])


def test_sides_that_cannot_be_halved_so_often_raise_a_user_error():
    with pytest.raises(UserError, match=r"28 x 28 can be halved 2 times, not 3"):
        realnvp.squeezed_shapes((28, 28, 1), 3)
    # Glow halves the sides at least once, so fewer scales would not help.
    with pytest.raises(UserError, match=r"9 x 8 cannot be halved: use RealNVP with one scale"):
        realnvp.squeezed_shapes((9, 8, 1), 1)
    with pytest.raises(UserError, match="images"):
        realnvp.squeezed_shapes((2,), 1)
