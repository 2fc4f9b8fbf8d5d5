"""Checks of image shapes, for networks of images."""

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError


def is_image(spec: Spec) -> bool:
    """Whether examples have height, width and channels."""
    return len(spec.shape) == 3


def image_shape(spec: Spec) -> tuple[int, int, int]:
    """Returns height, width and channels.

    Raises:
        UserError: the data are not images.
    """
    if not is_image(spec):
        raise UserError(f"{spec.name} is not made of images, which this network needs: choose another --data.name.")
    height, width, channels = spec.shape
    return height, width, channels


def pixel_shape(spec: Spec, *, features: int) -> tuple[int, int, int]:
    """Returns height, width and channels of images of levels, which a layer of so many features can carry.

    Raises:
        UserError: the data are not such images, or have more channels than the layer has features.
    """
    if spec.levels is None or not is_image(spec):
        raise UserError(f"{spec.name} is not made of pixels: choose a --data.name of images.")
    height, width, channels = spec.shape
    if features < channels:
        raise UserError(f"--features is too small for the {channels} channels of {spec.name}: use a larger number.")
    return height, width, channels


def num_levels(spec: Spec) -> int:
    """Returns how many levels the data have.

    Raises:
        UserError: they have none.
    """
    if spec.levels is None:
        raise UserError(f"{spec.name} has no levels, which this model needs: choose wave:tones or images.")
    return spec.levels


def count_halvings(shape: tuple[int, ...], *, smallest: int) -> int:
    """Counts how often both sides of an image can be halved and stay whole numbers of at least `smallest`."""
    height, width, _ = shape
    if height % 2 or width % 2 or min(height, width) < 2 * smallest:
        return 0
    return 1 + count_halvings((height // 2, width // 2, 0), smallest=smallest)
