"""Decodes the records of a prepared set: array_record files of protobuf Examples, with images as PNG or JPEG.

The files may come from someone else. A record is read and decoded one at a time, the size that an image declares is
compared with features.json before its pixels are decoded, and only the decoders of PNG and JPEG are admitted (PIL's
for PostScript runs another program). Every fault is a UserError that names the file.
"""

import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gm_jax import signals
from gm_jax.data import image_files
from gm_jax.data.tfds_folder import Contents, Shard, damaged
from gm_jax.errors import UserError

# Number of channels -> PIL's modes that have them, 8 bits each. "1" is grey of one bit.
_MODES: Mapping[int, tuple[str, ...]] = {1: ("L", "1"), 2: ("LA",), 3: ("RGB",), 4: ("RGBA",)}
_INT32 = np.iinfo(np.int32)


def num_records(contents: Contents, split: str) -> int:
    """Counts the records of one split.

    Raises:
        UserError: a file is missing or damaged, or does not hold as many as dataset_info.json has.
    """
    for shard in contents.splits[split]:
        _check_file(shard)
    return sum(shard.num_records for shard in contents.splits[split])


def decode_split(contents: Contents, split: str, size: int | None = None) -> Iterator[tuple[np.ndarray, int | None]]:
    """Decodes one split, one record after another in the order on disk.

    Args:
        contents: of the set; its shape is that of the decoded images.
        split: one of its splits.
        size: rows and columns to which images of any size are resized; None if all have the shape of the contents.
    Returns:
        An iterator over ([H, W, C] uint8, label); the label is None if there are none. A label outside of int32 becomes
        the nearest one in it.
    Raises:
        UserError: a file is damaged, or a record does not fit features.json.
    """
    for shard in contents.splits[split]:
        for index, record in enumerate(_records(shard)):
            signals.check()
            try:
                decoded = _decode_record(record, contents, size)
            except Exception as error:  # protobuf and PIL raise many types for damaged bytes
                fault = str(error) if isinstance(error, _UnfitError) else "that cannot be decoded"
                raise damaged(shard.file, f"has a record, number {index}, {fault}") from None
            yield decoded


class _UnfitError(Exception):
    """A record that can be decoded and does not fit features.json."""


def _check_file(shard: Shard) -> None:
    if not shard.file.is_file():  # nor is a pipe or a device, which would block or never end
        raise UserError(f"The data set is incomplete: {shard.file} is missing. Copy or prepare it again.")
    if shard.num_records == 0:
        return
    num_records = _call(shard, _open(shard).num_records)
    if num_records != shard.num_records:
        raise damaged(shard.file, f"holds {num_records} records where dataset_info.json has {shard.num_records}")


def _records(shard: Shard) -> Iterator[bytes]:
    """Iterates over the records of a file, one at a time: records that are large together never are in memory."""
    if shard.num_records == 0:  # then the file may be empty
        return
    reader = _open(shard)
    for _ in range(shard.num_records):
        yield _call(shard, reader.read)


def _open(shard: Shard) -> Any:
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue] compiled

    # Without threads, each of which would read ahead.
    options = "readahead_buffer_size:0,max_parallelism:0"
    return _call(shard, lambda: array_record_module.ArrayRecordReader(str(shard.file), options))


def _call(shard: Shard, read: Any) -> Any:
    try:
        return read()
    except (RuntimeError, ValueError, IndexError, MemoryError, OSError):
        raise damaged(shard.file, "is damaged") from None


def _decode_record(record: bytes, contents: Contents, size: int | None) -> tuple[np.ndarray, int | None]:
    from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2

    example = example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue] made at run time
    fields = example.FromString(record).features.feature
    if "image" not in fields or len(fields["image"].bytes_list.value) != 1:
        raise _UnfitError("without one image")
    encoded = fields["image"].bytes_list.value[0]
    shape: Any = contents.shape
    image = _decode_image(encoded, shape) if size is None else _decode_any(encoded, shape[-1], size)
    if contents.num_classes is None:
        return image, None
    if "label" not in fields or len(fields["label"].int64_list.value) != 1:
        raise _UnfitError("without one label")
    return image, min(max(fields["label"].int64_list.value[0], _INT32.min), _INT32.max)


def _decode_any(encoded: bytes, channels: int, size: int) -> np.ndarray:
    """Returns [size, size, channels] uint8 of an image of any size."""
    try:
        return image_files.decode(encoded, channels, size)
    except image_files.UnfitError as fault:
        raise _UnfitError(f"whose image {fault}") from None


def _decode_image(encoded: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Returns [H, W, C] uint8."""
    import PIL.Image

    # PIL warns of large images, whose size is compared here.
    with (
        warnings.catch_warnings(action="ignore"),
        PIL.Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image,
    ):
        if (image.height, image.width) != shape[:2] or image.mode not in _MODES.get(shape[2], ()):
            raise _UnfitError(
                f"whose image is {image.height}x{image.width} of mode {image.mode}, where features.json has "
                f"{'x'.join(map(str, shape))}"
            )
        return np.asarray(image.convert("L") if image.mode == "1" else image).reshape(shape)
