r"""RealNVP (Dinh, Sohl-Dickstein & Bengio, ICLR 2017, arXiv:1605.08803): affine couplings.

    python -m experiments.realnvp                                            # digits, two minutes
    python -m experiments.realnvp --data.name mnist --data.dir ../shared/tfds --features 16 --blocks 1 \
        --train.steps 1500 --train.checkpoint-every 250 --train.patience 0
    python -m experiments.realnvp --data.name toy:two_moons
Measured: test NLL <= 1.98 bits/dim (87.7 nats, lower bound on log p, uniform dequantisation) on the 180 test digits of
17 levels, by the first command; under two minutes of computing on two CPU cores. It overfits their 1,437 images.
1.81 on mnist by the second: one and a half epochs, 19 minutes beside much other work; published, larger: 1.06.
"""

import dataclasses
from typing import Literal

from experiments import nice
from gm_jax import runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config(nice.FlowConfig):
    """Images: several scales of residual networks. Anything else: pairs of couplings with perceptrons."""

    train: runner.TrainConfig = runner.TrainConfig(
        steps=1_000, batch_size=64, steps_per_call=10, checkpoint_every=100, ema_decay=0.995, patience=4
    )
    alpha: runner.RateOrZero = 0.05
    """Of the logit that takes dequantised levels to the real line: how far its argument stays from 0 and 1. 0 for no
    logit. Points are real as they are."""
    network: Literal["conv", "mlp"] | None = None
    """conv for images, mlp for vectors; by default what the data are."""
    bound: runner.Rate = 2.0
    """Of the log-scales of the couplings."""
    features: runner.Count = 32
    """conv: channels of the residual networks."""
    blocks: runner.Count = 2
    """conv: residual blocks of each."""
    scales: runner.Count | None = None
    """conv: each but the last halves the sides. By default as many as keep them even, and at least 4."""
    hidden: runner.Widths = (64, 64)
    """mlp: widths of each coupling's perceptron."""
    pairs: runner.Count = 8
    """mlp: pairs of couplings."""


def build(config: Config, spec) -> runner.Experiment:
    """RealNVP in several scales, or of vectors."""
    from gm_jax.networks import realnvp

    if (config.network or ("conv" if len(spec.shape) == 3 else "mlp")) == "mlp":
        network = realnvp.RealNVP(spec.shape, config.hidden, config.pairs, config.bound, dtype=config.dtype)
        return nice.experiment(config, spec, network)
    check_images(spec)
    scales = config.scales or 1 + halvings(spec.shape, smallest=4)
    network = realnvp.ImageRealNVP(
        spec.shape, scales, config.features, config.blocks, bound=config.bound, dtype=config.dtype
    )
    return nice.experiment(config, spec, network)


def halvings(shape: tuple[int, ...], *, smallest: int) -> int:
    """How often both sides of an image can be halved and stay whole numbers, none below the smallest."""
    height, width, _ = shape
    if height % 2 or width % 2 or min(height, width) < 2 * smallest:
        return 0
    return 1 + halvings((height // 2, width // 2, 0), smallest=smallest)


def check_images(spec) -> None:
    """Raises a UserError where the data are no images."""
    if len(spec.shape) != 3:
        raise UserError(f"{spec.name} is not made of images: this network is for images.")


if __name__ == "__main__":
    runner.main(Config, build)
