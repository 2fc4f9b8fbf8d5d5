import jax.numpy as jnp
import numpy as np

from gm_jax.networks import diffusion_mlp, two_times, unet


def test_both_times_matter_and_one_time_is_both(randomized):
    x, t = jnp.ones((3, 2)), jnp.array([1.0, 1.0, 2.0])
    module = two_times.TwoTimes(diffusion_mlp.DiffusionMLP(8, 1))
    variables = randomized(module, x, t)
    one = module.apply(variables, x, t)
    np.testing.assert_array_equal(one, module.apply(variables, x, t, earlier=t))
    other = module.apply(variables, x, t, earlier=t - 0.5)
    assert (np.abs(other - one).max(axis=1) > 1e-3).all()
    assert np.abs(one[2] - one[0]).max() > 1e-3


def test_images_and_labels_go_through(randomized):
    x, t, label = jnp.ones((2, 4, 4, 1)), jnp.ones(2), jnp.array([0, 1])
    module = two_times.TwoTimes(unet.UNet((4,), groups=2, num_classes=3))
    found = module.apply(randomized(module, x, t, label), x, t, label, earlier=0.5 * t, train=True)
    assert found.shape == x.shape
    assert np.abs(found[0] - found[1]).max() > 1e-3
