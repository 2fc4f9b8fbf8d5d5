"""One process of `data_pipeline`: makes the set, or loads it, or reads batches, and prints a line of JSON.

python -m benchmarks.data_worker make FOLDER NUM
python -m benchmarks.data_worker load FOLDER
python -m benchmarks.data_worker read FOLDER SECONDS ROUNDS
"""

import io
import itertools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

NAME, VERSION, SIDE, CHANNELS = "made", "1.0.0", 64, 3
HELD_OUT = 500  # images of validation, and of test
BATCH = 128

_DISTINCT = 2_000  # images, which are repeated
_SHARD = 100_000  # records in a file
_FEATURES = "tensorflow_datasets.core.features."


def main(what: str, folder: str, *numbers: str) -> None:
    """Does one part of the benchmark, and prints what it found."""
    work: Mapping[str, Callable[..., dict[str, Any]]] = {"make": make, "load": load, "read": read}
    print(json.dumps(work[what](Path(folder), *map(float, numbers))), flush=True)


def make(folder: Path, num: float) -> dict[str, Any]:
    """Writes a prepared set of TensorFlow Datasets: `num` images to train on, HELD_OUT for validation and test."""
    start = time.perf_counter()
    root = folder / NAME / VERSION
    root.mkdir(parents=True)
    examples = list(_records())
    sizes = {"train": int(num), "validation": HELD_OUT, "test": HELD_OUT}
    splits = []
    for split, size in sizes.items():
        lengths = [min(_SHARD, size - first) for first in range(0, size, _SHARD)]
        for index, length in enumerate(lengths):
            file = root / f"{NAME}-{split}.array_record-{index:05d}-of-{len(lengths):05d}"
            _write(file, itertools.islice(itertools.cycle(examples), length))
        splits.append({"name": split, "shardLengths": [str(length) for length in lengths]})
    info = {"name": NAME, "version": VERSION, "fileFormat": "array_record", "splits": splits}
    (root / "dataset_info.json").write_text(json.dumps(info))
    shape = {"dimensions": [str(SIDE), str(SIDE), str(CHANNELS)]}
    image = {
        "pythonClassName": f"{_FEATURES}image_feature.Image",
        "image": {"dtype": "uint8", "shape": shape, "encodingFormat": "png"},
    }
    tree = {"pythonClassName": f"{_FEATURES}features_dict.FeaturesDict", "featuresDict": {"features": {"image": image}}}
    (root / "features.json").write_text(json.dumps(tree))
    return {"seconds": time.perf_counter() - start, "bytes": sum(file.stat().st_size for file in root.iterdir())}


def _records() -> Iterator[bytes]:
    """Makes distinct images: a square of one colour on a ground of another."""
    import PIL.Image
    from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2

    rng = np.random.default_rng(0)
    for _ in range(_DISTINCT):
        pixels = np.empty((SIDE, SIDE, CHANNELS), np.uint8)
        pixels[:] = rng.integers(0, 256, CHANNELS)
        row, column, size = rng.integers(0, SIDE // 2, 3)
        pixels[row : row + size + 1, column : column + size + 1] = rng.integers(0, 256, CHANNELS)
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, "PNG")
        message = example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue] made at run time
        message.features.feature["image"].bytes_list.value.append(buffer.getvalue())
        yield message.SerializeToString()


def _write(file: Path, records: Iterator[bytes]) -> None:
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue] compiled

    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def load(folder: Path) -> dict[str, Any]:
    """Loads the set: decodes it if the cache does not hold it."""
    from gm_jax.data import mapped_arrays, sources

    start = time.perf_counter()
    splits = sources.load(NAME, str(folder)).splits
    x = splits["train"]["x"]
    return {"seconds": time.perf_counter() - start, "images": len(x), "mapped": mapped_arrays.is_mapped(x)}


def read(folder: Path, seconds: float, rounds: float) -> dict[str, Any]:
    """Gathers and places batches as training does, without training: images/s, of the clock and of a core's time."""
    from gm_jax.data import sources

    rng = np.random.default_rng(0)
    splits = {
        f"{NAME}, {SIDE} x {SIDE} x {CHANNELS}, on disk": sources.load(NAME, str(folder)).splits["train"],
        "CIFAR-10's shape, in memory": {"x": rng.integers(0, 256, (50_000, 32, 32, 3), np.uint8)},
        "MNIST's shape, in memory": {"x": rng.integers(0, 256, (60_000, 28, 28, 1), np.uint8)},
    }
    return {"rates": {name: _rates(split, seconds, int(rounds)) for name, split in splits.items()}}


def _rates(split: Mapping[str, np.ndarray], seconds: float, rounds: int) -> dict[str, float]:
    import jax

    from gm_jax.data import pipeline
    from gm_jax.data.prefetch import Prefetch
    from gm_jax.training import parallel

    strategy = parallel.jit()

    def placed(step: int) -> Any:
        return strategy.place_batches(pipeline.train_batches(split, BATCH, 0, step, 1))

    found, step = [], 0
    with Prefetch(placed, range(10**9)) as prefetch:
        for _ in range(rounds + 1):  # the first one reads the epoch's order
            first, clock, core = step, time.perf_counter(), time.process_time()
            while time.perf_counter() - clock < seconds:
                jax.block_until_ready(prefetch(step))
                step += 1
            images = (step - first) * BATCH
            found.append((images / (time.perf_counter() - clock), images / (time.process_time() - core)))
    clock_rate, core_rate = (statistics.median(rates) for rates in zip(*found[1:], strict=True))
    return {"images_per_second": clock_rate, "images_per_core_second": core_rate}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main(*sys.argv[1:])
