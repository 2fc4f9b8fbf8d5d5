"""Ways to damage a prepared data set: each returns (folder) -> None."""

import json
import struct
import zlib

import numpy as np

from tests.data.tfds_examples import example, png, write_records

SHAPE = (8, 8, 1)
TRAIN, TEST = "small-train.array_record-00000-of-00001", "small-test.array_record-00000-of-00001"
INFO, FEATURES = "dataset_info.json", "features.json"
GREY = png(np.arange(64, dtype=np.uint8).reshape(SHAPE))


def content(file, new):
    """Replaces a file's bytes."""
    return lambda folder: (folder / file).write_bytes(new)


def cut(file, share):
    """Keeps the first part of a file."""

    def damage(folder):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[: int(share * len(whole))])

    return damage


def flipped(file, position):
    def damage(folder):
        whole = bytearray((folder / file).read_bytes())
        whole[position] ^= 0xFF
        (folder / file).write_bytes(whole)

    return damage


def gone(file):
    return lambda folder: (folder / file).unlink()


def other(file, make):
    """Replaces a file with something that is not one."""

    def damage(folder):
        (folder / file).unlink()
        make(folder / file)

    return damage


def edited(file, *path, to):
    """Replaces a value in a JSON file; `to` may be a function of the old one."""

    def damage(folder):
        tree = json.loads((folder / file).read_text())
        *parents, last = path
        at = tree
        for key in parents:
            at = at[key]
        at[last] = to(at.get(last) if isinstance(at, dict) else at[last]) if callable(to) else to
        (folder / file).write_text(json.dumps(tree))

    return damage


def info(*path, to):
    return edited(INFO, *path, to=to)


def split(key, to):
    return edited(INFO, "splits", 0, key, to=to)


def image(key, to):
    return edited(FEATURES, "featuresDict", "features", "image", "image", key, to=to)


def label(key, to):
    return edited(FEATURES, "featuresDict", "features", "label", key, to=to)


def feature(name, to):
    return edited(FEATURES, "featuresDict", "features", name, to=to)


def side(*sides):
    return image("shape", {"dimensions": list(sides)})


def record(new, position=3):
    """Replaces one of the records of train; None leaves it out."""

    def damage(folder):
        records = [example(GREY, 1)] * 12
        records[position : position + 1] = [] if new is None else [new]
        write_records(folder / TRAIN, records)

    return damage


def both(*damages):
    def damage(folder):
        for each in damages:
            each(folder)

    return damage


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height, extra=b"", lines=b""):
    """Returns a PNG that claims a size, and whose compressed data or text may be of another."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
