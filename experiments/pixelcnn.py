r"""PixelCNN and gated PixelCNN (van den Oord et al., ICML 2016, arXiv:1601.06759; NeurIPS 2016, arXiv:1606.05328).

    python -m experiments.pixelcnn                                           # digits, about a minute
    python -m experiments.pixelcnn --data.name binarized_mnist --data.dir ../shared/tfds --train.steps 1800 \
        --train.checkpoint-every 300 --train.batch-size 32 --optimizer.learning-rate 2e-3
    python -m experiments.pixelcnn --no-gated --output categorical           # plain, on the levels themselves
Measured: test NLL 22.05 nats (exact) on digits, dynamic, 180 test images, by the first command; a minute of computing
on two CPU cores. 91.82 on binarized_mnist, static, 10,000 test images, by the second: one epoch, 23 minutes beside much
other work. Published, by a larger network and full training: 81.30.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

from experiments import likelihoods
from gm_jax import runner
from gm_jax.errors import UserError

if TYPE_CHECKING:
    from gm_jax.models.autoregressive_networks import OrderedNetwork


@dataclasses.dataclass(frozen=True)
class RasterConfig:
    """What the models in raster order share."""

    data: runner.DataConfig = runner.DataConfig()
    train: runner.TrainConfig = runner.TrainConfig(
        steps=2_000, batch_size=50, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4
    )
    optimizer: runner.OptimizerConfig = runner.OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=100)
    output: Literal["bernoulli", "categorical", "logistic_mixture"] = "bernoulli"
    """p(x_i | x_<i): bernoulli for binarised images, categorical or logistic_mixture for levels."""
    components: runner.Count = 10
    """Of the logistic mixture."""
    binarization: Literal["static", "dynamic", "threshold"] | None = None
    """For bernoulli: static as shipped, dynamic resampled at each step, threshold at half. By default static where the
    data are binary and dynamic where they are not."""
    conditional: bool = False
    """Condition on the class label; the likelihood is that of the mixture of all classes."""


@dataclasses.dataclass(frozen=True)
class Config(RasterConfig):
    """A small one; the papers have 64 to 384 features and 8 to 15 layers."""

    gated: bool = True
    """Two stacks of gated layers, which see all that precedes a pixel; else residual blocks with a blind spot."""
    features: runner.Count = 32
    """Width of the layers."""
    layers: runner.Count = 4
    """After the first."""
    first_size: runner.Count = 7
    """Of the first layer's kernel, an odd number; the others' are 3 x 3."""


def build(config: Config, spec) -> runner.Experiment:
    """A convolutional network whose masks forbid looking ahead."""
    from gm_jax.models import autoregressive_networks
    from gm_jax.networks import pixelcnn

    # The blocks of the plain network narrow its features to half of them.
    check_images(spec, features=config.features if config.gated else config.features // 2)
    if config.first_size < 3 or config.first_size % 2 == 0:
        raise UserError(f"--first-size {config.first_size}: a masked kernel has a centre and neighbours: 3, 5, 7 ...")
    network = pixelcnn.GatedPixelCNN if config.gated else pixelcnn.PixelCNN
    module = network(
        spec.shape,
        **network_settings(config, spec),
        features=config.features,
        layers=config.layers,
        first_size=config.first_size,
    )
    return experiment(config, spec, autoregressive_networks.image_network(module))


def experiment(config: RasterConfig, spec, network: "OrderedNetwork") -> runner.Experiment:
    """What the models in raster order share: all but the network."""
    from gm_jax.models import autoregressive
    from gm_jax.plotting import autoregressive as plotting

    distribution, settings = likelihoods.of_conditionals(config, spec)
    num_classes = network_settings(config, spec)["num_classes"]
    model = autoregressive.Autoregressive(
        network=network, likelihood=distribution, shape=spec.shape, num_classes=num_classes
    )
    return runner.Experiment(
        model.model,
        optimizers={"autoregressive": runner.make_optimizer(config.optimizer, config.train)},
        pictures=plotting.grids(model, spec.shape),
        settings=settings,
    )


def network_settings(config: RasterConfig, spec) -> dict:
    """What a network must know of the levels that come in and the outputs that go out."""
    if config.conditional and spec.num_classes is None:
        raise UserError(f"{spec.name} has no labels to condition on: --no-conditional")
    levels = 2 if config.output == "bernoulli" else spec.levels
    outputs = {"bernoulli": 1, "categorical": levels, "logistic_mixture": 3 * config.components}[config.output]
    return {
        "levels": levels,
        "outputs_per_dim": outputs,
        "num_classes": spec.num_classes if config.conditional else None,
    }


def check_images(spec, *, features: int) -> None:
    """Raises a UserError where the data are no images, or have more colours than a layer has features for."""
    if spec.levels is None or len(spec.shape) != 3:
        raise UserError(f"{spec.name} is not made of pixels: choose a data set of images.")
    if features < spec.shape[-1]:
        raise UserError(f"{features} features cannot carry the {spec.shape[-1]} channels of {spec.name}: take more.")


if __name__ == "__main__":
    runner.main(Config, build)
