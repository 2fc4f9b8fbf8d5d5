r"""NADE, the neural autoregressive distribution estimator (Larochelle & Murray, AISTATS 2011; JMLR 2016).

    python -m experiments.nade                                               # digits, about a minute
    python -m experiments.nade --data.name binarized_mnist --data.dir ../shared/tfds --train.steps 24000 \
        --train.checkpoint-every 1000 --optimizer.learning-rate 2e-3 --optimizer.weight-decay 0.03
Measured: test NLL 87.42 nats (exact) on binarized_mnist, static, 10,000 test images, by the second command; 79 minutes
on two CPU cores with much other work beside. Published: 88.33.
"""

import dataclasses

from experiments import fvsbn
from gm_jax import runner


@dataclasses.dataclass(frozen=True)
class Config(fvsbn.Config):
    """A hidden layer of 500 sigmoid units, as in the paper."""

    hidden: runner.Count = 500
    """Hidden units."""


def build(config: Config, spec) -> runner.Experiment:
    """D conditionals that share one hidden layer's weights."""
    from gm_jax.models import autoregressive_networks
    from gm_jax.networks.nade import NADE

    orders = fvsbn.distinct_orders(config, spec)
    network = NADE(orders.shape[1], config.hidden, fvsbn.num_classes(config, spec))
    return fvsbn.experiment(config, spec, autoregressive_networks.masked_network(network, orders, orders))


if __name__ == "__main__":
    runner.main(Config, build)
