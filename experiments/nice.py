r"""NICE (Dinh, Krueger & Bengio, ICLR 2015 workshop, arXiv:1410.8516): additive couplings and one scaling.

    python -m experiments.nice                                               # digits, half a minute
    python -m experiments.nice --data.name mnist --data.dir ../shared/tfds \
        --hidden 1000 1000 1000 1000 1000 --train.steps 8000 --train.checkpoint-every 500
    python -m experiments.nice --data.name toy:pinwheel --prior normal
Measured: test NLL <= 2.80 bits/dim (124.4 nats, lower bound on log p, uniform dequantisation) on the 180 test digits of
17 levels, by the first command; half a minute of computing on two CPU cores. It overfits their 1,437 images.
4.65 on mnist by the second: 16 epochs, 32 minutes beside much other work; published: 4.36.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

from gm_jax import runner
from gm_jax.errors import UserError

if TYPE_CHECKING:
    import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """What the flows share."""

    data: runner.DataConfig = runner.DataConfig()
    train: runner.TrainConfig = runner.TrainConfig(
        steps=2_000, batch_size=100, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4
    )
    optimizer: runner.OptimizerConfig = runner.OptimizerConfig(
        learning_rate=1e-3, schedule="cosine", warmup_steps=100, clip_norm=100.0
    )
    alpha: runner.RateOrZero = 0.0
    """Of the logit that takes dequantised levels to the real line: how far its argument stays from 0 and 1. 0 for no
    logit. Points are real as they are."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks inside the couplings; parameters, latents and log-determinants stay float32. bfloat16
    leads back less closely: a Glow of 16 steps to 0.02 at worst, where float32 leads back to 3e-5."""


@dataclasses.dataclass(frozen=True)
class Config(FlowConfig):
    """Four couplings, as in the paper, whose perceptrons have five layers of 1000 units on MNIST."""

    hidden: runner.Widths = (256, 256, 256)
    """Widths of each coupling's perceptron."""
    couplings: runner.Count = 4
    """Alternating between the two halves; three or more let every dimension depend on every other."""
    prior: Literal["logistic", "normal"] = "logistic"
    """Density of the latent, in training and in sampling."""


def build(config: Config, spec) -> runner.Experiment:
    """NICE; every dimension of the data by itself in one of two halves."""
    from gm_jax.networks.nice import NICE

    network = NICE(spec.shape, config.hidden, config.couplings, dtype=config.dtype)
    return experiment(config, spec, network, prior=config.prior)


def experiment(config: FlowConfig, spec, network: "nn.Module", *, prior: str = "normal") -> runner.Experiment:
    """What the flows share: all but the network."""
    from gm_jax.models import flow
    from gm_jax.plotting import flow as plotting

    if config.alpha >= 0.5:
        raise UserError(f"--alpha {config.alpha} leaves nothing between it and 1 - alpha: it must be less than 0.5.")
    if spec.levels is None:
        dequantization = flow.no_dequantization()
    else:
        dequantization = flow.uniform_dequantization(levels=spec.levels, alpha=config.alpha or None)
    priors = {"normal": flow.standard_normal, "logistic": flow.standard_logistic}
    model = flow.Flow(network=network, prior=priors[prior](), dequantization=dequantization)
    return runner.Experiment(
        model.model,
        optimizers={"flow": runner.make_optimizer(config.optimizer, config.train)},
        pictures=plotting.grids(model, spec.shape),
        plane=runner.Plane(model.log_density, model.decode) if spec.shape == (2,) else None,
    )


if __name__ == "__main__":
    runner.main(Config, build)
