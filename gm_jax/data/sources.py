"""Named sources of data: digits, `captions`, `toy:*`, `wave:*`, your own, and every image set of TFDS.

`x` is the data that the literature's numbers refer to: uint8 levels [N, H, W, C] for images and [N, T] for waveforms,
float32 points [N, 2] for toys. Nothing is scaled, binarised or augmented here: that belongs to a model, which counts
the log-determinant. Images of more than `memory.MOST_IN_MEMORY` bytes are mapped from the cache, all else is in memory.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import arrays, binary_digits, captions, image_folder, pipeline, scenes, tfds_sources, toy, waveform
from gm_jax.data.array_cache import Digests, Splits
from gm_jax.data.names import unknown_name
from gm_jax.errors import UserError
from gm_jax.hashing import array_digest

# Sources that need neither a file nor a network.
EMBEDDED = (
    "digits",
    *binary_digits.NAMES,
    scenes.CAPTIONS,
    *(toy.PREFIX + name for name in toy.TOYS),
    *(waveform.PREFIX + name for name in waveform.NAMES),
)

# Prefixes of your own data: a folder of images, a file of arrays, and arrays that only Python has.
FOLDER, NPZ, ARRAYS = "folder:", "npz:", "arrays:"

_DIGITS_ENDS = (1437, 1617)  # of 1,797: 1,437 train, 180 validation, 180 test
_DIGITS_SEED = 1797  # of the permutation behind the splits; changing it changes the data


_VERSION_SUFFIX = re.compile(r":[0-9]+\.[0-9]+\.[0-9]+$")


class Spec(NamedTuple):
    """The facts of a source that a model is built from.

    Attributes:
        name: as requested, e.g. "mnist:3.0.1".
        shape: of one example, e.g. (28, 28, 1) or (2,).
        levels: each value is an integer level 0 .. levels - 1; None if values are continuous.
        num_classes: labels are 0 .. num_classes - 1; None if there are no labels.
        fingerprint: SHA-256 of the arrays in hex; a checkpoint stores it, so that a run resumes on its own data.
        version: of the prepared set that was read, e.g. "3.0.1", also if the name asks for none; None for a source
            without versions.
        cut: the rule by which splits that the data do not ship were cut, e.g. "validation: last 1/6 of train"; None
            if all are shipped.
        size: rows and columns to which images were resized; None if they are as shipped.
        tokens: of each caption, including the padding; None if there are no captions.
        vocabulary: the number of words, including the padding 0; tokens are below it. None without captions.
    """

    name: str
    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None
    fingerprint: str
    version: str | None = None
    cut: str | None = None
    size: int | None = None
    tokens: int | None = None
    vocabulary: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Returns what every result on these data must state: how splits were cut and images resized, if they were."""
        return {name: fact for name, fact in (("splits", self.cut), ("size", self.size)) if fact is not None}

    @property
    def measure(self) -> str:
        """Names the base measure of a log-probability of these data: "binary", "256 levels" or "continuous"."""
        if self.levels is None:
            return "continuous"
        return "binary" if self.levels == 2 else f"{self.levels} levels"


class Source(NamedTuple):
    """Data and their facts.

    Attributes:
        spec: the facts.
        splits: "train", "validation", "test" -> {"x": [N, ...], "label": [N] int32 if there are labels,
            "tokens": [N, L] int32 if there are captions}.
    """

    spec: Spec
    splits: Splits


def load(name: str, data_dir: str | None = None, size: int | None = None) -> Source:
    """Loads a source into memory; images that are too many for that are mapped from the cache.

    * "digits": scikit-learn's 1,797 8x8 digits, uint8 levels 0..16, 10 classes; 1,437 train, 180 validation and
      180 test by one fixed permutation.
    * "binarized_digits": the same in black and white; "digits4x4": the exact small world. See `binary_digits`.
    * "captions", "captions:mnist": scikit-learn's or MNIST's digits in colour, with captions. See `scenes`.
    * "toy:two_moons", "toy:eight_gaussians", "toy:checkerboard", "toy:pinwheel": see `toy`.
    * "wave:tones": see `waveform`.
    * "folder:PATH": PNG and JPEG images, see `image_folder`; "npz:PATH": arrays, see `arrays`.
    * any other name is an image set of TensorFlow Datasets, prepared as array_record: see `tfds_sources`.

    Args:
        name: name of the source.
        data_dir: folder of prepared TFDS sets; None means $TFDS_DATA_DIR, or else ~/tensorflow_datasets. For a relative
            PATH, the folder that it starts from; None means the working directory.
        size: rows and columns to which the centre of every image is resized, see `image_files`; None to leave them.
    Returns:
        The source.
    Raises:
        UserError: there is no such source, it is not prepared in a readable form, a file is damaged, or images differ
            in size and none is given.
    """
    if size is not None and name in (*EMBEDDED, scenes.CAPTIONS_MNIST):
        raise UserError(f"--data.size has no effect on {name}: leave it out.")
    version = cut = None
    digests: Digests = {}
    if name == "digits":
        splits, levels, num_classes = _digits(), 17, 10
    elif name == binary_digits.BINARIZED:
        splits, levels, num_classes = binary_digits.binarized_splits(_digits()), 2, 10
    elif name == binary_digits.SMALL_WORLD:
        splits, levels, num_classes = binary_digits.small_world_splits(), 2, 10
    elif name in scenes.NAMES:
        splits, levels, num_classes = _captions(name, data_dir), scenes.LEVELS, None
    elif name.startswith(f"{scenes.CAPTIONS}:"):
        raise unknown_name("source of captions", name, scenes.NAMES)
    elif name.startswith(toy.PREFIX):
        splits, levels = toy.toy_splits(name), None
        num_classes = toy.TOYS[name.removeprefix(toy.PREFIX)].num_modes
    elif name.startswith(waveform.PREFIX):
        splits, levels, num_classes = waveform.waveform_splits(name), waveform.LEVELS, waveform.NUM_PITCHES
    elif name.startswith(FOLDER):
        splits, levels, num_classes, cut, digests = image_folder.read_folder(_own_path(name, data_dir), size)
    elif name.startswith(NPZ):
        splits, levels, num_classes, cut = arrays.read_npz(_own_path(name, data_dir), size)
    elif name == ARRAYS.rstrip(":") or name.startswith(ARRAYS):
        raise UserError(f"'{name}' are arrays that only Python has: give them to gm_jax.open_run or gm_jax.train.")
    else:
        known = (*EMBEDDED, scenes.CAPTIONS_MNIST, f"{FOLDER}PATH", f"{NPZ}PATH")
        splits, levels, num_classes, version, cut, digests = tfds_sources.read_images(name, data_dir, known, size)
    for split, parts in splits.items():
        if not len(parts["x"]):
            raise UserError(f"'{name}' has no examples in its {split} split: prepare it again, or choose other data.")
    shape = splits["train"]["x"].shape[1:]
    spec = Spec(name, shape, levels, num_classes, fingerprint(splits, digests), version, cut, size)
    if "tokens" in splits["train"]:
        spec = spec._replace(tokens=captions.LENGTH, vocabulary=len(captions.VOCABULARY))
    return Source(spec, splits)


def from_arrays(data: Any, name: str = "arrays", size: int | None = None) -> Source:
    """Makes a source of arrays: x, (x, label), or a mapping as `arrays` describes it.

    Args:
        data: the arrays; uint8 images or levels, or float points.
        name: of the data, in results; there it is "arrays", or starts with "arrays:".
        size: rows and columns to which the centre of every image is resized; None to leave them.
    Raises:
        UserError: the arrays are not what `arrays` describes.
    """
    if isinstance(data, tuple) and len(data) == 2:
        data = {"x": data[0], "label": data[1]}
    elif not isinstance(data, Mapping):
        data = {"x": data}
    name = name if f"{name}:".startswith(ARRAYS) else ARRAYS + name
    splits, levels, num_classes, cut = arrays.from_arrays(data, "data", size)
    shape = splits["train"]["x"].shape[1:]
    return Source(Spec(name, shape, levels, num_classes, fingerprint(splits), None, cut, size), splits)


def located(name: str, data_dir: str | None) -> tuple[str, str | None]:
    """Returns the name and the folder that find the same data from any working directory.

    "folder:photos/birds" becomes ("folder:birds", "/home/me/photos"), so that data that have moved are found again by
    another folder; other names and folders stay as they are.
    """
    if not name.startswith((FOLDER, NPZ)):
        return name, data_dir
    path = Path(os.path.abspath(_own_path(name, data_dir)))
    return f"{name.partition(':')[0]}:{path.name}", str(path.parent)


def short_name(name: str) -> str:
    """Returns a name of data as a part of a file's name: "toy:two_moons" is "two_moons", "npz:a/b.npz" is "b"."""
    prefix, _, rest = name.partition(":")
    if name.startswith((FOLDER, NPZ)):
        rest = Path(os.path.abspath(os.path.expanduser(rest))).name.removesuffix(".npz")
    elif f"{prefix}:" not in (toy.PREFIX, waveform.PREFIX, ARRAYS) or not rest:
        rest = name
    return re.sub(r"[^\w.\-]+", "-", rest).strip("-.") or "data"


def _own_path(name: str, data_dir: str | None) -> Path:
    """Returns the path of a source of one's own, relative to `data_dir` or the working directory."""
    path = os.path.expanduser(name.partition(":")[2])
    if not path or "\0" in path or "://" in path:
        raise UserError(f"'{name}' does not name a path of this machine: use {FOLDER}PATH or {NPZ}PATH.")
    return Path(os.path.expanduser(data_dir or ""), path)


def load_again(name: str, saved: Spec, data_dir: str | None = None, size: int | None = None) -> Source:
    """Loads the data that a run was started on: the version that it read then, even if a newer one is prepared now.

    Args:
        name: name of the source, as the run was given it.
        saved: the Spec that the run has kept.
        data_dir: as for `load`.
        size: as for `load`.
    Returns:
        The source. Its fingerprint differs from the saved one if no prepared version has these data.
    Raises:
        UserError: as for `load`, or the run's version is not prepared.
    """
    if name in EMBEDDED or name.startswith((FOLDER, NPZ)) or _VERSION_SUFFIX.search(name):
        return load(name, data_dir, size)
    prepared = tfds_sources.prepared_versions(name, data_dir)
    if saved.version is not None and prepared:
        if saved.version not in prepared:
            raise UserError(
                f"The run was trained on version {saved.version} of '{name}'; prepared here: {', '.join(prepared)}.\n"
                "Prepare that version, or give its folder by --data.dir (evaluate: --data-dir)."
            )
        return _load_version(name, saved.version, data_dir, size)
    # A run of before versions were kept: the fingerprint chooses among them, the newest first.
    source = load(name, data_dir, size)
    for version in reversed(prepared[:-1]):
        if source.spec.fingerprint == saved.fingerprint:
            break
        other = _load_version(name, version, data_dir, size)
        if other.spec.fingerprint == saved.fingerprint:
            return other
    return source


def check_labels(spec: Spec, splits: Splits) -> None:
    """Checks that all labels are 0 .. num_classes - 1; for a model that uses them, because others need not care.

    A split whose labels all are -1 passes: TFDS writes this if labels are kept secret, as for test splits.

    Args:
        spec: facts of the source.
        splits: its arrays.
    Raises:
        UserError: a label is out of range, or there are more classes than a model can have parameters for.
    """
    if spec.num_classes is None:
        return
    if spec.num_classes > arrays.MOST_CLASSES:
        raise UserError(
            f"'{spec.name}' has {spec.num_classes} classes, more than {arrays.MOST_CLASSES}: choose other data."
        )
    for split, parts in splits.items():
        label = parts["label"]
        if np.all(label == -1):
            continue
        wrong = label[(label < 0) | (label >= spec.num_classes)]
        if len(wrong):
            raise UserError(
                f"'{spec.name}' has the label {wrong[0]} in its {split} split, and {spec.num_classes} classes, so that "
                f"labels are 0 .. {spec.num_classes - 1} ({len(wrong)} of {len(label)} are not).\n"
                "Prepare it again, or choose a model without labels."
            )


def _load_version(name: str, version: str, data_dir: str | None, size: int | None) -> Source:
    source = load(f"{name}:{version}", data_dir, size)
    return source._replace(spec=source.spec._replace(name=name))


def fingerprint(splits: Splits, digests: Digests | None = None) -> str:
    """Computes the SHA-256 of names of splits and arrays, dtypes, shapes and bytes, in any order of the dicts.

    Args:
        splits: split -> name -> array.
        digests: split -> name -> SHA-256 of the array, for those of which it is known.
    Returns:
        64 hex digits.
    """
    known = digests or {}
    lines = [
        f"{split} {name} {known.get(split, {}).get(name) or array_digest(array)}\n"
        for split, parts in splits.items()
        for name, array in parts.items()
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _captions(name: str, data_dir: str | None) -> Splits:
    if name == scenes.CAPTIONS:
        return scenes.caption_splits(_digits(), 17)
    images = tfds_sources.read_images("mnist", data_dir)
    return scenes.caption_splits(images.splits, images.levels, neighbours=10)


def _digits() -> Splits:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    x = digits.images.astype(np.uint8)[..., None]
    label = digits.target.astype(np.int32)
    parts = np.split(pipeline.permutation(len(x), _DIGITS_SEED, 0), _DIGITS_ENDS)
    return {
        split: {"x": x[part], "label": label[part]}
        for split, part in zip(("train", "validation", "test"), parts, strict=True)
    }
