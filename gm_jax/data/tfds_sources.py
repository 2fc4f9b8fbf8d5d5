"""Image sets of TensorFlow Datasets, read from array_record files without TensorFlow.

A set is located by its files (`<data_dir>/<name>[/<config>]/<version>/dataset_info.json`) before TFDS is imported,
because offline TFDS retries for minutes and reports a misleading error; nothing here downloads. The images are decoded
once, in the order on disk (TFDS' own shuffle), and cached as .npy by `array_cache`.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import array_cache
from gm_jax.data.array_cache import Splits
from gm_jax.data.names import unknown_name
from gm_jax.errors import UserError

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>\w[\w.\-]*))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 1024
_CACHE_FORMAT = 1  # increase it if decoding or splitting changes, so that older entries are not used


class Images(NamedTuple):
    """A decoded image set.

    Attributes:
        splits: "train", "validation", "test" -> {"x": [N, H, W, C] uint8, "label": [N] int32 if there are labels}.
        levels: 256, or 2 if the pixels take two values, which are then 0 and 1.
        num_classes: the number of labels, or None.
    """

    splits: Splits
    levels: int
    num_classes: int | None


def read_images(name: str, data_dir: str | None, embedded: Iterable[str] = ()) -> Images:
    """Reads a prepared image set whole into memory, from the cache if possible.

    Validation is the split that the set ships, or else the last sixth of train in the order on disk.

    Args:
        name: "mnist", "mnist:3.0.1", "mnist_corrupted/identity" or "mnist_corrupted/identity:1.0.0". Without a
            version, the newest prepared one.
        data_dir: folder of prepared sets; None means $TFDS_DATA_DIR, or else ~/tensorflow_datasets.
        embedded: names of the other sources, to suggest if the name is unknown.
    Returns:
        The images.
    Raises:
        UserError: the name is unknown, or the set is not prepared, not array_record, or not of uint8 images of one
            shape with a train and a test split.
    """
    folder = _find(name, _resolve_data_dir(data_dir), embedded)
    entry = _cache_entry(name, folder)
    cached = array_cache.read(entry)
    if cached is not None:
        splits, facts = cached
        return Images(splits, facts["levels"], facts["num_classes"])
    images = _decode(name, folder)
    array_cache.write(entry, images.splits, {"levels": images.levels, "num_classes": images.num_classes})
    return images


def _resolve_data_dir(data_dir: str | None) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _find(name: str, data_dir: Path, embedded: Iterable[str]) -> Path:
    """Finds the folder of the prepared version that the name selects."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise _unknown(name, data_dir, embedded)
    set_dir = data_dir / match["name"]
    config_dir = set_dir / match["config"] if match["config"] else set_dir
    versions = _versions(config_dir)
    version = match["version"] or max(versions, key=_numbers, default=None)
    if version in versions:
        _check_file_format(name, config_dir / version, data_dir)
        return config_dir / version
    configs = [] if match["config"] else [child.name for child in _subfolders(set_dir) if _versions(child)]
    if versions:
        raise UserError(
            f"Version {version} of '{match['name']}' is not prepared in {data_dir}: use {' or '.join(versions)}, "
            "or prepare it."
        )
    if configs:
        raise UserError(
            f"'{match['name']}' has several configurations: name one, such as '{match['name']}/{configs[0]}'.\n"
            f"Prepared in {data_dir}: {', '.join(configs[:10])}."
        )
    if not set_dir.is_dir() and match["name"] not in _tfds_names():
        raise _unknown(name, data_dir, embedded)
    raise UserError(
        f"Data set '{name}' is not prepared in {data_dir}, and gm_jax downloads nothing. "
        f"To prepare it:\n{_how_to_prepare(name, data_dir)}"
    )


def _check_file_format(name: str, folder: Path, data_dir: Path) -> None:
    # Old versions of TFDS, which knew only tfrecord, wrote no "fileFormat".
    file_format = json.loads((folder / "dataset_info.json").read_text()).get("fileFormat", "tfrecord")
    if file_format != "array_record":
        another = data_dir.with_name(data_dir.name + "_array_record")
        raise UserError(
            f"{folder} is prepared as {file_format}; reading without TensorFlow needs array_record. "
            f"Prepare it again in another folder:\n{_how_to_prepare(name, another)}"
        )


def _how_to_prepare(name: str, data_dir: Path) -> str:
    return (
        "    pip install -e '.[prepare]'\n"
        f'    python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir={str(data_dir)!r}, '
        "file_format='array_record').download_and_prepare()\""
    )


def _unknown(name: str, data_dir: Path, embedded: Iterable[str]) -> UserError:
    embedded = tuple(embedded)
    known = {*embedded, *_tfds_names(), *(child.name for child in _subfolders(data_dir))}
    listed = f"{', '.join(embedded)}, every name of TensorFlow Datasets, and the sets prepared in {data_dir}"
    return unknown_name("data set", name, known, listed)


def _tfds_names() -> list[str]:
    import tensorflow_datasets as tfds

    # Without the community's sets this reads only the installed package; with them it uses the network.
    return tfds.list_builders(with_community_datasets=False)


def _versions(folder: Path) -> list[str]:
    """Lists the prepared versions in a folder, oldest first."""
    names = [child.name for child in _subfolders(folder) if _VERSION.fullmatch(child.name)]
    return sorted((name for name in names if (folder / name / "dataset_info.json").is_file()), key=_numbers)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir())
    except OSError:
        return []


def _cache_entry(name: str, folder: Path) -> str:
    """Names the cache entry; the name changes with the set, its version and its files."""
    info = (folder / "dataset_info.json").read_text()
    stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    key = [_CACHE_FORMAT, info, [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return f"{re.split('[/:]', name)[0]}-{folder.name}-{digest[:32]}"


def _decode(name: str, folder: Path) -> Images:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    num_classes = _check_features(name, builder.info.features)
    shipped = builder.info.splits
    for split in ("train", "test"):
        if split not in shipped:
            raise UserError(
                f"'{name}' has no {split} split, only {', '.join(sorted(shipped))}: choose a set with train and test."
            )
    seen = np.zeros(256, bool)
    splits = {
        split: _decode_split(name, builder, split, num_classes is not None, seen)
        for split in ("train", "validation", "test")
        if split in shipped
    }
    if "validation" not in splits:
        first = len(splits["train"]["x"]) - len(splits["train"]["x"]) // 6
        splits["validation"] = {key: array[first:] for key, array in splits["train"].items()}
        splits["train"] = {key: array[:first] for key, array in splits["train"].items()}
    splits = {split: splits[split] for split in ("train", "validation", "test")}
    values = set(np.flatnonzero(seen).tolist())
    if values <= {0, 255}:
        for arrays in splits.values():
            np.minimum(arrays["x"], 1, out=arrays["x"])
    return Images(splits, 2 if values <= {0, 1} or values <= {0, 255} else 256, num_classes)


def _check_features(name: str, features: Any) -> int | None:
    """Refuses everything except uint8 images of one shape; returns the number of classes, or None without labels."""
    import tensorflow_datasets as tfds

    if not isinstance(features, tfds.features.FeaturesDict) or "image" not in features:
        raise UserError(f"'{name}' has no feature 'image': choose an image set.")
    image: Any = features["image"]
    # np_dtype, because `dtype` imports TensorFlow.
    if image.np_dtype != np.uint8 or len(image.shape) != 3:
        raise UserError(
            f"'{name}' has images of {np.dtype(image.np_dtype)} {image.shape}: choose a set of uint8 [H, W, C]."
        )
    if None in image.shape:
        raise UserError(f"The images of '{name}' vary in shape, {image.shape}: choose a set of one shape.")
    label = features["label"] if "label" in features else None  # noqa: SIM401  (a FeaturesDict has no get)
    return label.num_classes if isinstance(label, tfds.features.ClassLabel) else None


def _decode_split(name: str, builder: Any, split: str, labelled: bool, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Decodes one split in chunks, and marks the pixel values that occur in `seen` [256]."""
    info = builder.info.splits[split]
    missing = [file for file in map(Path, info.filepaths) if not file.is_file()]
    if missing:
        raise UserError(f"'{name}' is incomplete: {missing[0]} is missing. Copy or prepare it again.")
    source = builder.as_data_source(split=split)
    x = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    label = np.empty(len(source), np.int32)
    for start in range(0, len(source), _CHUNK):
        stop = min(start + _CHUNK, len(source))
        records = source.__getitems__(list(range(start, stop)))
        x[start:stop] = [record["image"] for record in records]
        seen[x[start:stop]] = True
        if labelled:
            label[start:stop] = [record["label"] for record in records]
    return {"x": x, "label": label} if labelled else {"x": x}
