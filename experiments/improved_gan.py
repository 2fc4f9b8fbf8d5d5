"""Improved techniques for training GANs (Salimans et al., 2016, arXiv:1606.03498): five, each a switch.

    python -m experiments.improved_gan                                      # digits, all but feature matching
    python -m experiments.improved_gan --data.name toy:eight_gaussians      # points: fully connected
    python -m experiments.improved_gan --feature-matching --no-virtual-batch-norm --historical-averaging 0
    python -m tools.gan_ablation                                    # each by itself, several seeds, a table
Smoothing, minibatch discrimination and virtual batch norm belong to game and networks, the others to the loss.
Measured: the README's tables of each by itself, in three seeds. They help a game that loses part of the data, as a
fully connected one of digits; the DCGAN of digits, the default, does not, and is better without (`experiments.gan`).
"""

import dataclasses

from experiments import players
from gm_jax import runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config(players.PlayersConfig):
    """The non-saturating game; without any of the five it is `experiments.gan`."""

    feature_matching: bool = False
    """The generator matches the mean features of the data in place of deceiving the discriminator: where a game loses
    part of the data, and without the four others; where it does not, its samples are worse."""
    minibatch_discrimination: bool = True
    """The discriminator sees how close the examples of a batch lie to one another; where no mode is lost, it harms."""
    historical_averaging: runner.RateOrZero = 1e-4
    """Weight of the squared distance of the parameters from their mean over the past; 0 for none."""
    label_smoothing: runner.RateOrZero = 0.1
    """The discriminator's target for data is 1 less this; that for what is generated stays 0."""
    virtual_batch_norm: bool = True
    """Normalise the generator by a fixed batch and the example itself, in place of the batch it is in."""
    kernels: runner.Count = 16
    """Of minibatch discrimination: similarities of a pair of examples."""
    kernel_dim: runner.Count = 8
    """Of minibatch discrimination: dimensions of each."""


def build(config: Config, spec) -> runner.Experiment:
    """The techniques that are switched on, each where it belongs: network, game or loss."""
    from gm_jax.models import adversarial_objectives
    from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination
    from gm_jax.networks.normalization import WithReferenceBatch
    from gm_jax.training.parallel import AXIS

    if config.label_smoothing >= 1.0:
        raise UserError(f"--label-smoothing {config.label_smoothing} leaves no target for data: less than 1.")
    # Under pmap a device sees its part of the batch; the techniques that compare batches want the whole.
    axis_name = AXIS if config.train.parallel == "pmap" else None
    make_generator, make_discriminator = players.players(config, spec)
    similarities = MinibatchDiscrimination(config.kernels, config.kernel_dim, axis_name=axis_name)
    return players.experiment(
        config,
        spec,
        WithReferenceBatch(make_generator) if config.virtual_batch_norm else make_generator(),
        make_discriminator(minibatch_discrimination=similarities if config.minibatch_discrimination else None),
        adversarial_objectives.non_saturating(real_target=1.0 - config.label_smoothing),
        feature_matching=config.feature_matching,
        historical_averaging=config.historical_averaging,
        axis_name=axis_name,
    )


if __name__ == "__main__":
    runner.main(Config, build)
