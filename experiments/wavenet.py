"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499) on sequences: waveforms, or images in raster order.

    python -m experiments.wavenet                                            # digits as 64 levels in a row, a minute
    python -m experiments.wavenet --data.name wave:tones --dilations 1 2 4 8 16 32 64 128
Measured: test NLL 78.79 nats, 1.78 bits/dim (exact) on digits of 17 levels, 180 test images, by the first command; a
minute of computing on two CPU cores; 3.62 bits/dim on wave:tones by the second.
"""

import dataclasses
import math
from typing import Literal

from experiments import pixelcnn
from gm_jax import runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config(pixelcnn.RasterConfig):
    """A small one: six layers, whose receptive field is a whole digit."""

    output: Literal["bernoulli", "categorical", "logistic_mixture"] = "categorical"
    """p(x_t | x_<t): categorical, as in the paper, or logistic_mixture for levels; bernoulli for binarised images."""
    features: runner.Count = 32
    """Residual channels, and channels of the gates."""
    skip: runner.Count = 128
    """Channels of the skip connections."""
    dilations: runner.Widths = (1, 2, 4, 8, 16, 32)
    """Of each layer; the receptive field is 1 + (kernel size - 1) times their sum."""
    kernel_size: runner.Count = 2
    """Taps of each convolution."""


def build(config: Config, spec) -> runner.Experiment:
    """A stack of gated, dilated causal convolutions with skip connections."""
    from gm_jax.models import autoregressive_networks
    from gm_jax.networks import wavenet

    if spec.levels is None:
        raise UserError(f"{spec.name} has no levels, which a sequence is made of here: choose wave:tones or images.")
    if config.kernel_size < 2:
        raise UserError("a causal convolution of one tap sees no past: --kernel-size 2 or more.")
    module = wavenet.WaveNet(
        **pixelcnn.network_settings(config, spec),
        features=config.features,
        skip=config.skip,
        dilations=config.dilations,
        kernel_size=config.kernel_size,
    )
    network = autoregressive_networks.sequence_network(module, length=math.prod(spec.shape))
    return pixelcnn.experiment(config, spec, network)


if __name__ == "__main__":
    runner.main(Config, build)
