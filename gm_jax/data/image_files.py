"""Decodes PNG and JPEG images that may come from anyone: from files, or from bytes.

Only the decoders of PNG and JPEG are admitted, because PIL's decoder of PostScript runs another program. The size that
an image declares is compared with MOST_PIXELS before its pixels are decoded.

Conventions: a photograph is turned upright by its EXIF orientation; transparent pixels are composited on white; 16 bits
become 8; palettes and CMYK become RGB. `size` takes the largest centred square and resizes it with PIL's Lanczos
filter, which smooths when it shrinks.
"""

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import memory

MOST_PIXELS = 2**27  # of one image

_GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: the values that exchange height and width


class UnfitError(Exception):
    """An image that is refused; the message completes a sentence that starts with the file's name."""


class Declared(NamedTuple):
    """What the header of an image declares: its height and width when upright, and 1 channel for grey, else 3."""

    height: int
    width: int
    channels: int


def declared(encoded: Path | bytes) -> Declared:
    """Reads the header of an image.

    Raises:
        UnfitError: it is not a PNG or JPEG image, or is too large.
    """
    with _opened(encoded) as image:
        height, width = image.height, image.width
        if image.getexif().get(_ORIENTATION) in _TURNED:
            height, width = width, height
        return Declared(height, width, 1 if image.mode in _GREY_MODES else 3)


def decode(encoded: Path | bytes, channels: int, size: int | None = None) -> np.ndarray:
    """Decodes an image.

    Args:
        encoded: a file, or its bytes.
        channels: 1 for grey, 3 for RGB.
        size: rows and columns of the result; None for those of the image.
    Returns:
        [H, W, channels] uint8.
    Raises:
        UnfitError: it is not a PNG or JPEG image, is damaged, or is too large.
    """
    import PIL.ImageOps

    with _opened(encoded) as image:
        if image.format == "PNG":
            image.verify()  # the checksums, which decoding does not compare
    with _opened(encoded) as image:
        upright: Any = _opaque(_eight_bits(PIL.ImageOps.exif_transpose(image)))
        upright = upright.convert("L" if channels == 1 else "RGB")
        if size is not None:
            upright = resized(upright, size)
        return np.asarray(upright).reshape(upright.height, upright.width, channels)


def resized(image: Any, size: int) -> Any:
    """Resizes the largest centred square of a PIL image to `size` rows and columns."""
    import PIL.Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    # Cropped first, because the filter would reach beyond a `box`.
    return image.crop(box).resize((size, size), PIL.Image.Resampling.LANCZOS)


def resize_arrays(x: np.ndarray, size: int) -> np.ndarray:
    """Resizes images [N, H, W, C] uint8 of 1, 3 or 4 channels, as `resized` does."""
    import PIL.Image

    shape = (size, size, x.shape[-1])
    rows = memory.allocate((len(x), *shape), np.uint8, "the data", "choose a smaller size")
    for row, one in zip(rows, x, strict=True):
        image = PIL.Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one)
        row[:] = np.asarray(resized(image, size)).reshape(shape)
    return rows


def make_levels(images: Iterable[np.ndarray], seen: np.ndarray) -> int:
    """Returns the number of levels, 2 or 256, of images; pixels that are 0 or 255 become 0 or 1, in place.

    Args:
        images: uint8 arrays.
        seen: [256] bool, the pixel values that occur in them.
    """
    values = set(np.flatnonzero(seen).tolist())
    if values <= {0, 255}:
        for array in images:
            np.minimum(array, 1, out=array)
    return 2 if values <= {0, 1} or values <= {0, 255} else 256


@contextlib.contextmanager
def _opened(encoded: Path | bytes) -> Iterator[Any]:
    """Opens an image whose size is allowed; turns what PIL raises into `UnfitError`."""
    import PIL.Image

    if isinstance(encoded, Path) and not encoded.is_file():  # a pipe would block
        raise UnfitError("is not a regular file")
    if (encoded.stat().st_size if isinstance(encoded, Path) else len(encoded)) == 0:
        raise UnfitError("is empty")
    source = encoded if isinstance(encoded, Path) else io.BytesIO(encoded)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images: their size is compared below
            with PIL.Image.open(source, formats=("PNG", "JPEG")) as image:
                if image.height * image.width > MOST_PIXELS:
                    raise PIL.Image.DecompressionBombError
                yield image
    except PIL.Image.DecompressionBombError:
        raise UnfitError(f"declares more than {MOST_PIXELS // 2**20} million pixels") from None
    except PIL.UnidentifiedImageError:
        raise UnfitError("is not a PNG or JPEG image") from None
    except UnfitError:
        raise
    except Exception as error:  # PIL raises many types for damaged bytes
        raise UnfitError(f"cannot be decoded ({_first_line(error)})") from None


def _eight_bits(image: Any) -> Any:
    """Turns 16 bits of grey into 8."""
    import PIL.Image

    if not image.mode.startswith("I"):
        return image
    levels = np.clip(np.asarray(image, np.int64), 0, 65535)
    return PIL.Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _opaque(image: Any) -> Any:
    """Composites an image with transparent pixels on white."""
    import PIL.Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]
