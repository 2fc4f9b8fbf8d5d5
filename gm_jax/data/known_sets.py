"""The shapes of well-known image sets, for a plan, which needs shapes and no data."""

from collections.abc import Mapping
from typing import NamedTuple


class KnownSet(NamedTuple):
    """What a model needs to know of a set of TensorFlow Datasets.

    Attributes:
        shape: of one example.
        levels: each value is an integer level 0 .. levels - 1; None for real numbers.
        num_classes: labels are 0 to num_classes - 1; None if there are no labels.
    """

    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None


KNOWN_SETS: Mapping[str, KnownSet] = {
    "mnist": KnownSet((28, 28, 1), 256, 10),
    "binarized_mnist": KnownSet((28, 28, 1), 2, None),
    "fashion_mnist": KnownSet((28, 28, 1), 256, 10),
    "kmnist": KnownSet((28, 28, 1), 256, 10),
    "cifar10": KnownSet((32, 32, 3), 256, 10),
    "cifar100": KnownSet((32, 32, 3), 256, 100),
    # Images of several sizes, of which --data.size 256 takes the centre.
    "lsun/church_outdoor": KnownSet((256, 256, 3), 256, None),
    # Latents of an autoencoder that is not here: to train, give them as npz:PATH.
    "imagenet256_latents": KnownSet((32, 32, 4), None, 1_000),
}
