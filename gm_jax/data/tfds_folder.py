"""What a prepared set of TensorFlow Datasets holds, by its dataset_info.json and features.json.

TFDS imports every module that features.json names, and the folder may come from someone else. Therefore the two files
are read here, as data: a class that TFDS does not define is refused, and nothing that the files name is imported.
Every fault is a UserError that names the file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gm_jax.errors import UserError

INFO, FEATURES = "dataset_info.json", "features.json"

_IN_TFDS = "tensorflow_datasets.core.features."
_FEATURES_DICT = _IN_TFDS + "features_dict.FeaturesDict"
_IMAGE = _IN_TFDS + "image_feature.Image"
_CLASS_LABEL = _IN_TFDS + "class_label_feature.ClassLabel"
_KNOWN_CLASSES = {
    _FEATURES_DICT,
    _IMAGE,
    _CLASS_LABEL,
    *(
        _IN_TFDS + name
        for name in (
            "audio_feature.Audio",
            "bounding_boxes.BBoxFeature",
            "dataset_feature.Dataset",
            "feature.Tensor",
            "labeled_image.LabeledImage",
            "scalar.Scalar",
            "sequence_feature.Sequence",
            "tensor_feature.Tensor",
            "text_feature.Text",
            "translation_feature.Translation",
            "translation_feature.TranslationVariableLanguages",
            "video_feature.Video",
        )
    ),
}

_MOST_BYTES = 64 * 2**20  # of a JSON file; the largest of TFDS' own sets have a few MB
_MOST_SHARDS = 99_999  # their numbers in file names have five digits
_FILE_NAME = re.compile(r"[\w\-][\w.\-]{0,99}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class Shard(NamedTuple):
    """One record file: its path, and the number of records that it must hold."""

    file: Path
    num_records: int


class Contents(NamedTuple):
    """What a prepared set holds.

    Attributes:
        shape: of one image, (H, W, C); a side that varies is None.
        dtype: of the images, e.g. "uint8".
        num_classes: labels should be 0 .. num_classes - 1; None if there are no labels.
        splits: the record files of each split, in order.
    """

    shape: tuple[int | None, ...]
    dtype: str
    num_classes: int | None
    splits: dict[str, tuple[Shard, ...]]


def damaged(file: Path, fault: str) -> UserError:
    """Builds the error for a damaged file of a prepared set."""
    return UserError(f"{file} {fault}: copy or prepare the data set again.")


def file_format(folder: Path) -> str:
    """Reads the format of a set's record files, e.g. "array_record".

    Args:
        folder: of one version.
    Raises:
        UserError: dataset_info.json is damaged.
    """
    file = folder / INFO
    # Old versions of TFDS, which knew only tfrecord, wrote no "fileFormat".
    return _name(_read_json(file).get("fileFormat", "tfrecord"), file, "fileFormat")


def read_contents(name: str, folder: Path) -> Contents:
    """Reads what a prepared set holds.

    Args:
        name: of the set, for messages.
        folder: of one version.
    Raises:
        UserError: a file is damaged, there is no image, or features.json names a class that TFDS does not define.
    """
    shape, dtype, num_classes = _read_features(name, folder / FEATURES)
    return Contents(shape, dtype, num_classes, _read_splits(folder / INFO))


def _read_splits(file: Path) -> dict[str, tuple[Shard, ...]]:
    info = _read_json(file)
    dataset = _name(info.get("name"), file, "name")
    suffix = _name(info.get("fileFormat"), file, "fileFormat")
    listed = info.get("splits", [])
    if not isinstance(listed, list):
        raise damaged(file, "has no list of splits")
    splits: dict[str, tuple[Shard, ...]] = {}
    for entry in listed:
        if not isinstance(entry, dict):
            raise damaged(file, "has a split that is not an object")
        split = _name(entry.get("name"), file, "name of a split")
        if split in splits:
            raise damaged(file, f"lists the split {split} twice")
        lengths = entry.get("shardLengths", [])
        if not isinstance(lengths, list) or len(lengths) > _MOST_SHARDS:
            raise damaged(file, f"has no list of at most {_MOST_SHARDS} shardLengths for {split}")
        template = entry.get("filepathTemplate") or _TEMPLATE
        fields = {"DATASET": dataset, "SPLIT": split, "FILEFORMAT": suffix, "NUM_SHARDS": f"{len(lengths):05d}"}
        splits[split] = tuple(
            Shard(
                file.parent / _shard_name(file, template, {**fields, "SHARD_INDEX": f"{index:05d}"}),
                _count(length, file, f"shardLengths of {split}"),
            )
            for index, length in enumerate(lengths)
        )
    return splits


def _shard_name(file: Path, template: Any, fields: dict[str, str]) -> str:
    """Fills a template of file names; str.format would also follow attributes."""
    if not isinstance(template, str):
        raise damaged(file, "has a filepathTemplate that is not a string")
    name = template.replace("{SHARD_X_OF_Y}", f"{fields['SHARD_INDEX']}-of-{fields['NUM_SHARDS']}")
    for field, value in fields.items():
        name = name.replace(f"{{{field}}}", value)
    if not re.fullmatch(r"[\w\-][\w.\-]{0,254}", name):
        raise damaged(file, "has a filepathTemplate that does not name a file of this folder")
    return name


def _read_features(name: str, file: Path) -> tuple[tuple[int | None, ...], str, int | None]:
    """Reads shape and dtype of the images, and the number of classes."""
    tree = _read_json(file)
    for named in _class_names(tree):
        if named not in _KNOWN_CLASSES:
            raise UserError(
                f"{file} names the class {str(named)[:100]!r}, which is not a feature of TensorFlow Datasets.\n"
                "gm_jax imports nothing that a data folder names: prepare the set without this feature."
            )
    features = _object(tree.get("featuresDict", {}), file).get("features", {})
    image = _object(_object(features, file).get("image", {}), file)
    if tree.get("pythonClassName") != _FEATURES_DICT or image.get("pythonClassName") != _IMAGE:
        raise UserError(f"'{name}' has no feature 'image' of images in {file}: choose an image set.")
    facts = _object(image.get("image", {}), file)
    sides = _object(facts.get("shape", {}), file).get("dimensions", [])
    if not isinstance(sides, list) or len(sides) > 8:
        raise damaged(file, "has no list of dimensions")
    shape = tuple(None if side in ("-1", -1) else _count(side, file, "dimensions", at_least=1) for side in sides)
    label = _object(features.get("label", {}), file)
    num_classes = 0
    if label.get("pythonClassName") == _CLASS_LABEL:
        num_classes = _count(_object(label.get("classLabel", {}), file).get("numClasses", 0), file, "numClasses")
    return shape, _name(facts.get("dtype"), file, "dtype"), num_classes or None


def _class_names(tree: Any) -> Iterator[Any]:
    """Iterates over all values of "pythonClassName", and "type" of TFDS' first format, at any depth."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            if "pythonClassName" in node:
                yield node["pythonClassName"] if isinstance(node["pythonClassName"], str) else "of no name"
            if isinstance(node.get("type"), str) and "content" in node:
                yield node["type"]
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)


def _read_json(file: Path) -> dict[str, Any]:
    """Reads an object from a JSON file; a pipe or device would block, and is refused as not a file."""
    if not file.is_file():
        raise damaged(file, "is missing")
    if file.stat().st_size > _MOST_BYTES:
        raise damaged(file, f"is larger than {_MOST_BYTES // 2**20} MB")
    try:
        return _object(json.loads(file.read_bytes().decode()), file)
    except (ValueError, RecursionError):
        raise damaged(file, "is not readable JSON") from None


def _object(value: Any, file: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise damaged(file, "does not have the fields of a prepared set")
    return value


def _name(value: Any, file: Path, field: str) -> str:
    """Checks a word that becomes a part of a file name or of a message."""
    if not isinstance(value, str) or not _FILE_NAME.fullmatch(value):
        raise damaged(file, f"has no readable {field}")
    return value


def _count(value: Any, file: Path, field: str, at_least: int = 0) -> int:
    """Reads a number that protobuf's JSON writes as a string."""
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _DIGITS.fullmatch(text) or int(text) < at_least:
        raise damaged(file, f"has no readable {field}")
    return int(text)
