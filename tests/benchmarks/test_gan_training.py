import jax
import numpy as np
import pytest

from benchmarks import comparison, gan_case, gan_training, timing, train_step
from gm_jax.networks.dcgan import DCGANDiscriminator, DCGANGenerator


def test_the_report_has_both_loops_of_pytorch_and_the_parity():
    seconds = {"gm_jax": 0.2, gan_training.THEIRS: 0.5, gan_training.TUTORIAL: 0.1}
    rounds = [{name: timing.Sample(value, 0.0) for name, value in seconds.items()}] * timing.FEWEST_CLEAN
    theirs = (gan_training.THEIRS, gan_training.TUTORIAL)
    report = gan_training.report(
        {
            "step": comparison.of_rounds("a step", rounds, ("gm_jax",), theirs, at_least=1.0),
            "compile_seconds": {"gm_jax": 5.0},
            "parity": {"parameters": {"generator": 3_000, "discriminator": 40}, "losses": 1e-8, "gradients": 2e-7},
        }
    )
    assert [line.count("at least 1: met") for line in report.splitlines() if line.startswith("| a step")] == [1, 0]
    assert (
        "generator 3,000, discriminator 40. Losses differ by at most 1e-08, the gradient of an array by at most 2e-07."
        in report
    )


# These tests do not need PyTorch: its computation on the converted arrays is written out here, with XLA's convolution
# in PyTorch's layout. The benchmark itself compares with PyTorch before it times anything.
def convolved(x, weight, *, stride=2, padding=1, spread=1):
    layout = ("NCHW", "OIHW", "NCHW")
    y = jax.lax.conv_general_dilated(
        x, weight.copy(), (stride,) * 2, [(padding,) * 2] * 2, lhs_dilation=(spread,) * 2, dimension_numbers=layout
    )
    return np.asarray(y)


def transposed(x, weight):
    """ConvTranspose2d of kernel 4, stride 2, padding 1, and weight [C, F, 4, 4]."""
    flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return convolved(x, flipped, stride=1, padding=2, spread=2)


def normalized(x, scale, bias):
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


@pytest.fixture(scope="module")
def both():
    """Our variables and PyTorch's parameters."""
    params = gan_case.random_params()
    _, state = jax.eval_shape(gan_case.model().init, jax.random.key(0), {"x": gan_case.data()[:2]})
    zeros = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), state
    )  # running statistics, which are not read here
    ours = {player: {"params": params[player], **zeros[player]} for player in params}
    return ours, gan_case.arrays(params, 28)


def test_the_converted_generator_equals_ours(both):
    variables, arrays = both
    dense, *first, inner = arrays["generator"][:4]
    *second, outer, bias = arrays["generator"][4:]
    z = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    h = np.maximum(normalized((z @ dense.T).reshape(3, 128, 7, 7), *first), 0)
    h = np.maximum(normalized(transposed(h, inner), *second), 0)
    theirs = np.tanh(transposed(h, outer) + bias)
    network = DCGANGenerator((28, 28, 1), (128, 64))
    ours, _ = network.apply(variables["generator"], z, train=True, mutable="batch_stats")
    np.testing.assert_allclose(theirs.transpose(0, 2, 3, 1), ours, atol=2e-5)
    assert np.std(ours) > 0.1


def test_the_converted_discriminator_equals_ours(both):
    variables, arrays = both
    first, bias, second, *norm, dense, offset = arrays["discriminator"]
    x = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype(np.float32)

    def leaky(h):
        return np.where(h > 0, h, 0.2 * h)

    h = leaky(convolved(x.transpose(0, 3, 1, 2), first) + bias.reshape(1, -1, 1, 1))
    h = leaky(normalized(convolved(h, second), *norm))
    theirs = (h.reshape(3, -1) @ dense.T + offset)[:, 0]
    network = DCGANDiscriminator((64, 128))
    (ours, _), _ = network.apply(variables["discriminator"], x, train=True, mutable="batch_stats")
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_our_step_runs_on_batches_from_the_host(monkeypatch):
    monkeypatch.setattr(gan_training, "BATCH", 4)
    train_step.make_run(gan_training.training, (gan_case.random_params(),))(1)
