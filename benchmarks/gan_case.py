"""The DCGAN that gan_training.py and torch_gan.py share: sizes, data, parameters, and their conversion."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gm_jax.types import Model

SHAPE, WIDTHS, LATENT_DIM = (28, 28, 1), (64, 128), 32


def data() -> np.ndarray:
    """Makes random images [N, 28, 28, 1] uint8."""
    return np.random.default_rng(0).integers(0, 256, (5_000, *SHAPE), np.uint8)


def model() -> "Model":
    """Builds the model that experiments/gan.py builds at this size."""
    from gm_jax.models import adversarial_objectives, gan
    from gm_jax.networks import dcgan

    return gan.GAN(
        generator=dcgan.DCGANGenerator(SHAPE, WIDTHS[::-1]),
        discriminator=dcgan.DCGANDiscriminator(WIDTHS),
        losses=adversarial_objectives.non_saturating(),
        scaling=gan.images(levels=256),
        latent_dim=LATENT_DIM,
    ).model


def random_params() -> dict[str, Any]:
    """Draws parameters of both players, none of them zero."""
    import jax

    rng = np.random.default_rng(1)
    shapes, _ = jax.eval_shape(model().init, jax.random.key(0), {"x": data()[:2]})

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:  # vectors are scales and biases, drawn around 1
        return (0.05 * rng.normal(size=leaf.shape) + (len(leaf.shape) == 1)).astype(np.float32)

    return jax.tree.map(draw, shapes)


def arrays(params: Mapping[str, Any], side: int) -> dict[str, list[np.ndarray]]:
    """Converts parameters of both players to PyTorch's layout and order: transposed, taps reversed, never scaled.

    The conversion is linear, so it also converts gradients.
    """
    generator, discriminator = (params[player] for player in ("generator", "discriminator"))
    stages = sum(name.startswith("Conv_") for name in discriminator)
    smallest = (side // 2**stages,) * 2

    def norm(player: Mapping[str, Any], index: int) -> list[np.ndarray]:
        inner = player[f"BatchNorm_{index}"]["BatchNorm_0"]
        return [inner["scale"], inner["bias"]]

    # A flattened map has its channels last here and first in PyTorch.
    kernel = generator["Dense_0"]["kernel"]
    generator_arrays = [kernel.reshape(len(kernel), *smallest, -1).transpose(3, 1, 2, 0).reshape(-1, len(kernel))]
    for i in range(stages):
        layer = generator[f"FractionallyStridedConv_{i}"]
        generator_arrays += [*norm(generator, i), layer["kernel"][::-1, ::-1].transpose(2, 3, 0, 1)]
    generator_arrays.append(layer["bias"])

    discriminator_arrays = [discriminator["Conv_0"]["kernel"].transpose(3, 2, 0, 1), discriminator["Conv_0"]["bias"]]
    for i in range(1, stages):
        discriminator_arrays += [
            discriminator[f"Conv_{i}"]["kernel"].transpose(3, 2, 0, 1),
            *norm(discriminator, i - 1),
        ]
    last = discriminator["Dense_0"]
    discriminator_arrays += [
        last["kernel"].reshape(*smallest, -1, 1).transpose(3, 2, 0, 1).reshape(1, -1),
        last["bias"],
    ]
    return {"generator": generator_arrays, "discriminator": discriminator_arrays}
