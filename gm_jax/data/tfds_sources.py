"""Image sets of TensorFlow Datasets, read from array_record files without TensorFlow.

A set is located by its files, `<data_dir>/<name>[/<config>]/<version>/dataset_info.json`, and read by `tfds_folder`
and `tfds_records`; nothing here downloads. TFDS is asked only for the names of its sets. The images are decoded once,
in the order on disk (TFDS' own shuffle), and cached as .npy by `array_cache`.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import array_cache, split_writer
from gm_jax.data.array_cache import Splits, Stored
from gm_jax.data.names import unknown_name
from gm_jax.data.splits import SPLITS, sort_examples
from gm_jax.data.tfds_folder import INFO, Contents, file_format, read_contents
from gm_jax.data.tfds_records import decode_split, num_records
from gm_jax.errors import UserError

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>\w[\w.\-]*))?(:(?P<version>[0-9]+\.[0-9]+\.[0-9]+))?")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_CACHE_FORMAT = 2  # increase it if decoding or splitting changes, so that older entries are not used
_FLAG = "--data.dir (evaluate: --data-dir)"
_SHOWN = 5  # names of prepared sets in a message


class Images(NamedTuple):
    """A decoded image set, in memory or mapped.

    Attributes:
        splits: "train", "validation", "test" -> {"x": [N, H, W, C] uint8, "label": [N] int32 if there are labels}.
        levels: 256, or 2 if the pixels take two values, which are then 0 and 1.
        num_classes: the number of labels, or None.
        version: the version that was read, e.g. "3.0.1".
        cut: the rule by which missing splits were cut; None if none was.
        digests: SHA-256 of each array that comes from the cache.
    """

    splits: Splits
    levels: int
    num_classes: int | None
    version: str
    cut: str | None
    digests: array_cache.Digests


def read_images(name: str, data_dir: str | None, embedded: Iterable[str] = (), size: int | None = None) -> Images:
    """Reads a prepared image set, from the cache if possible.

    Validation is the split that the set ships, or else the last sixth of train in the order on disk. A set without a
    test split has its missing splits cut by `splits.cut_missing`.

    Args:
        name: "mnist", "mnist:3.0.1", "mnist_corrupted/identity" or "mnist_corrupted/identity:1.0.0". Without a
            version, the newest prepared one.
        data_dir: folder of prepared sets; None means $TFDS_DATA_DIR, or else ~/tensorflow_datasets.
        embedded: names of the other sources, to suggest if the name is unknown.
        size: rows and columns to which the centre of every image is resized; None for images of one shape.
    Returns:
        The images.
    Raises:
        UserError: the name is unknown, or the set is not prepared, not array_record, or not of uint8 images with a
            train split, one of its files is damaged, or images differ in shape and no size is given.
    """
    folder = _find(name, _resolve_data_dir(data_dir), embedded)
    entry = _cache_entry(name, folder, size)
    stored = array_cache.read(entry)
    if stored is None or not _is_usable(stored.splits, stored.facts):
        stored = _decode(name, folder, size, entry)
    facts = stored.facts
    return Images(stored.splits, facts["levels"], facts["num_classes"], folder.name, facts["cut"], stored.digests)


def prepared_versions(name: str, data_dir: str | None) -> list[str]:
    """Lists the prepared versions of a set, oldest first.

    Args:
        name: of the set, as for `read_images`.
        data_dir: folder of prepared sets, as for `read_images`.
    Raises:
        UserError: there is no home directory for the default folder.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return []
    return _versions(_resolve_data_dir(data_dir) / match["name"] / (match["config"] or ""))


def absolute_data_dir(folder: str) -> str:
    """Returns a folder of prepared sets as an absolute path, for later commands in another place or shell.

    A name that is not a folder of this machine is returned unchanged; reading from it is refused.
    """
    expanded = os.path.expanduser(folder)
    return folder if _is_elsewhere(expanded) else os.path.abspath(expanded)


def _is_elsewhere(expanded: str) -> bool:
    return "://" in expanded or expanded.startswith("~")


def _resolve_data_dir(data_dir: str | None) -> Path:
    given = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    expanded = os.path.expanduser(given)
    if "://" in expanded:
        raise UserError(f"{given} is not a folder of this machine: copy the prepared data here and give {_FLAG}.")
    if _is_elsewhere(expanded):
        raise UserError(f"There is no home directory for {given}: give the folder of prepared data by {_FLAG}.")
    return Path(expanded)


def _find(name: str, data_dir: Path, embedded: Iterable[str]) -> Path:
    """Finds the folder of the prepared version that the name selects."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise _not_found(name, "", data_dir, embedded)
    set_dir = data_dir / match["name"]
    config_dir = set_dir / match["config"] if match["config"] else set_dir
    versions = _versions(config_dir)
    version = match["version"] or max(versions, key=_numbers, default=None)
    if version in versions:
        _check_file_format(name, config_dir / version, data_dir)
        return config_dir / version
    if versions:
        raise UserError(
            f"Version {version} of '{match['name']}' is not prepared in {data_dir}: use {' or '.join(versions)}, "
            "or prepare it."
        )
    configs = [] if match["config"] else [child.name for child in _subfolders(set_dir) if _versions(child)]
    if configs:
        raise UserError(
            f"'{match['name']}' has several configurations: name one, such as '{match['name']}/{configs[0]}'.\n"
            f"Prepared in {data_dir}: {', '.join(configs[:10])}."
        )
    raise _not_found(name, match["name"], data_dir, embedded)


def _not_found(name: str, set_name: str, data_dir: Path, embedded: Iterable[str]) -> UserError:
    """Builds the error for a set of which no version is prepared; `set_name` is empty if no set can have the name."""
    above = _folder_of_sets(data_dir, set_name)
    if above is not None:
        return UserError(f"{data_dir} is itself a prepared data set: give the folder that contains it, {above}.")
    exists = os.path.isdir(data_dir)
    if not exists and os.path.exists(data_dir):
        return UserError(f"{data_dir} is not a folder: give the folder of prepared data sets by {_FLAG}.")
    if set_name in _tfds_names():
        return UserError(
            f"Data set '{name}' is not prepared in {data_dir}{'' if exists else ', which does not exist'}, and gm_jax "
            f"downloads nothing.{_what_is_prepared(data_dir)} If another folder has {name}, give it by {_FLAG}; or "
            f"prepare it:\n{_how_to_prepare(name, data_dir)}"
        )
    if set_name and os.path.isdir(data_dir / set_name):
        return UserError(
            f"{data_dir / set_name} is not a prepared data set: it has no version with {INFO}.\n"
            f"If it holds images of your own, use --data.name folder:{data_dir / set_name}."
        )
    if name.lower().endswith(".npz"):
        return UserError(f"There is no data set {name!r}. For arrays of your own use --data.name npz:{name}.")
    if os.path.isdir(os.path.expanduser(name)):
        return UserError(f"There is no data set {name!r}. For images of your own use --data.name folder:{name}.")
    error = _unknown(name, data_dir, embedded)
    if exists:
        return error
    first = str(error).splitlines()[0]
    return UserError(
        f"{first}\nIf it is a set of TensorFlow Datasets: the folder {str(data_dir)!r} does not exist. Give the folder "
        f"of prepared data by {_FLAG}."
    )


def _folder_of_sets(folder: Path, set_name: str) -> Path | None:
    """Returns the folder above a prepared set; None if `folder` is not a set, a configuration or a version of one."""
    if os.path.isfile(folder / INFO):
        return folder.absolute().parent.parent
    has_configs = folder.name == set_name and any(map(_versions, _subfolders(folder)))
    return folder.absolute().parent if _versions(folder) or has_configs else None


def _check_file_format(name: str, folder: Path, data_dir: Path) -> None:
    found = file_format(folder)
    if found != "array_record":
        another = data_dir.with_name(data_dir.name + "_array_record")
        raise UserError(
            f"{folder} is prepared as {found}; reading without TensorFlow needs array_record. "
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
    prepared = f"the sets prepared in {str(data_dir)!r}, the folder of {_FLAG}"
    listed = f"{', '.join(embedded)}, every name of TensorFlow Datasets, and {prepared}"
    return unknown_name("data set", name, {*embedded, *_tfds_names(), *_prepared_sets(data_dir)}, listed)


def _what_is_prepared(data_dir: Path) -> str:
    """Names some of the sets in a folder, in a sentence after another one."""
    sets = sorted(_prepared_sets(data_dir))
    return f" The folder has {', '.join(sets[:_SHOWN])}{'' if len(sets) <= _SHOWN else ' and more'}." if sets else ""


def _prepared_sets(data_dir: Path) -> list[str]:
    return [
        child.name
        for child in _subfolders(data_dir)
        if _NAME.fullmatch(child.name) and (_versions(child) or any(map(_versions, _subfolders(child))))
    ]


def _tfds_names() -> list[str]:
    import tensorflow_datasets as tfds

    # Without the community's sets this reads only the installed package; with them it uses the network.
    return tfds.list_builders(with_community_datasets=False)


def _versions(folder: Path) -> list[str]:
    """Lists the prepared versions in a folder, oldest first."""
    names = [child.name for child in _subfolders(folder) if _VERSION.fullmatch(child.name)]
    return sorted((name for name in names if os.path.isfile(folder / name / INFO)), key=_numbers)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir())
    except (OSError, ValueError):  # ValueError for a zero byte
        return []


def _cache_entry(name: str, folder: Path, size: int | None) -> str:
    """Names the cache entry; the name changes with the set, its version, its files and the size of its images."""
    info = (folder / INFO).read_text(encoding="utf-8")
    stats = [(file.name, *_size_and_time(file)) for file in sorted(folder.iterdir())]
    digest = hashlib.sha256(json.dumps([_CACHE_FORMAT, info, stats, size]).encode()).hexdigest()
    return f"{re.split('[/:]', name)[0]}-{folder.name}-{digest[:32]}"


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:  # a link to nothing
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _is_usable(splits: Splits, facts: Any) -> bool:
    """Whether what the cache holds is a decoded set; its hashes cover the arrays, and not which of them there are."""
    if not isinstance(facts, Mapping) or set(splits) != {"train", "validation", "test"}:
        return False
    levels, num_classes = facts.get("levels"), facts.get("num_classes")
    names = {"x"} if num_classes is None else {"x", "label"}
    return (
        levels in (2, 256)
        and isinstance(facts.get("cut", 0), str | None)
        and (num_classes is None or type(num_classes) is int)
        and all(set(arrays) == names for arrays in splits.values())
        and all(arrays["x"].dtype == np.uint8 and arrays["x"].ndim == 4 for arrays in splits.values())
    )


def _decode(name: str, folder: Path, size: int | None, entry: str) -> Stored:
    """Decodes a set into memory and the cache, or the cache alone."""
    contents = read_contents(name, folder)
    shape = _shape_of_images(name, contents, size)
    contents = contents._replace(shape=shape)
    if "train" not in contents.splits:
        shipped = sorted(contents.splits)
        listed = ", ".join(shipped[:10]) + (" ..." if len(shipped) > 10 else "")
        raise UserError(f"'{name}' has no train split, only {listed or 'none'}: choose a set with one.")
    sizes = {split: num_records(contents, split) for split in SPLITS if split in contents.splits}
    _refuse_empty(name, sizes)
    split_of, cut = _with_validation(sizes) if set(sizes) == {"train", "test"} else sort_examples(sizes, f"'{name}'")
    _refuse_empty(name, dict(zip(SPLITS, np.bincount(split_of, minlength=len(SPLITS)).tolist(), strict=True)))
    labelled = contents.num_classes is not None
    facts = {"num_classes": contents.num_classes, "cut": cut}
    plan = split_writer.Plan(entry, shape, split_of, labelled, facts, str(folder), "choose a smaller set")
    examples = itertools.chain.from_iterable(decode_split(contents, split, size) for split in sizes)
    return split_writer.write(plan, examples, _is_usable)


def _refuse_empty(name: str, sizes: Mapping[str, int]) -> None:
    for split, size in sizes.items():
        if not size:
            raise UserError(f"'{name}' has no examples in its {split} split: prepare it again, or choose other data.")


def _with_validation(sizes: Mapping[str, int]) -> tuple[np.ndarray, str]:
    """Makes the last sixth of train the validation split: the rule of all published numbers."""
    validation = sizes["train"] // 6
    counts = [sizes["train"] - validation, validation, sizes["test"]]
    return np.repeat(np.arange(len(SPLITS), dtype=np.uint8), counts), "validation: last 1/6 of train"


def _shape_of_images(name: str, contents: Contents, size: int | None) -> tuple[int, ...]:
    """Returns [H, W, C] of the decoded images; refuses everything except uint8 images of one shape or with a size."""
    shape: Any = contents.shape
    if contents.dtype != "uint8" or len(shape) != 3:
        raise UserError(f"'{name}' has images of {contents.dtype} {shape}: choose a set of uint8 [H, W, C].")
    if size is not None:
        channels = shape[2] or 3
        if channels not in (1, 3):
            raise UserError(
                f"'{name}' has images of {channels} channels, which --data.size cannot resize: leave it out."
            )
        return (size, size, channels)
    if None in shape:
        raise UserError(
            f"The images of '{name}' vary in shape, {shape}: give --data.size N, to which the centre of every image is "
            "resized."
        )
    return shape
