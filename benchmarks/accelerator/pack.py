"""Packs data sets into files that travel to a machine without a network: DATA.npz, read as --data.name npz:DATA.npz.

python -m benchmarks.accelerator.pack FOLDER --data-dir ~/tensorflow_datasets      # MNIST, as it is and binarised
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

NAMES = ("binarized_mnist", "mnist")


def pack(name: str, folder: Path, data_dir: str | None) -> Path:
    """Writes a data set's splits as uint8 arrays x_SPLIT, and label_SPLIT if it has labels; returns the file."""
    from gm_jax.data import sources

    arrays = {}
    for split, examples in sources.load(name, data_dir).splits.items():
        arrays |= {f"{key}_{split}": np.asarray(array) for key, array in examples.items()}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.npz"
    np.savez_compressed(file, **arrays)
    return file


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator.pack", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir", help="the folder of prepared TensorFlow Datasets; by default TFDS_DATA_DIR")
    parser.add_argument("--only", nargs="*", default=NAMES)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Packs the data sets of the trainings."""
    args = parse(argv)
    for name in args.only:
        file = pack(name, args.folder, args.data_dir)
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
