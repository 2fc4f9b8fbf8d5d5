"""Data from others: whatever a folder holds, it is read, or refused in three lines that name it; no code of it runs."""

import json
import os
import pathlib
import shutil
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2

from gm_jax import errors
from gm_jax.data import sources
from gm_jax.errors import UserError
from tests.data.damage import (
    FEATURES,
    GREY,
    INFO,
    SHAPE,
    TRAIN,
    bomb,
    both,
    chunk,
    content,
    cut,
    edited,
    feature,
    flipped,
    gone,
    image,
    info,
    label,
    other,
    record,
    side,
    split,
)
from tests.data.tfds_examples import example, examples, png, prepare


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("good")
    prepare(data_dir, {"train": examples(12, shape=SHAPE), "test": examples(4, shape=SHAPE)}, name="small")
    return data_dir


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gm_jax"


ZEROS = zlib.compress(bytes(64 * 2**20))
KEYS = example_pb2.Example()
KEYS.features.feature["image"].float_list.value.append(1.0)
NESTED = b"[" * 100_000 + b"]" * 100_000
NESTED_OBJECTS = b'{"splits":' * 100_000 + b"1" + b"}" * 100_000
EVIL = {"pythonClassName": "evil_features.Feature", "tensor": {"dtype": "uint8"}}
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"

# name -> (what is done to a good folder, what the message must name). None: the folder can still be read.
TABLE = {
    # dataset_info.json
    "info empty": (content(INFO, b""), INFO),
    "info half": (cut(INFO, 0.5), INFO),
    "info of zeros": (content(INFO, bytes(512)), INFO),
    "info not UTF-8": (content(INFO, b'{"name": "\xff\xfe"}'), INFO),
    "info a list": (content(INFO, b"[]"), INFO),
    "info null": (content(INFO, b"null"), INFO),
    "info a number of 5,000 digits": (content(INFO, b'{"splits": ' + b"9" * 5000 + b"}"), INFO),
    "info nested lists": (content(INFO, NESTED), INFO),
    "info nested objects": (content(INFO, NESTED_OBJECTS), INFO),
    "info larger than memory should be": (lambda folder: os.truncate(folder / INFO, 2**40), INFO),
    "info a list in place of its format": (info("fileFormat", to=["array_record"]), INFO),
    "info of an unknown format": (info("fileFormat", to="riegeli"), "riegeli"),
    "info without a name": (info("name", to=None), INFO),
    "info whose name is a path": (info("name", to="../../small"), INFO),
    "info whose name has a line break": (info("name", to="a\nb\nc\nd"), INFO),
    "info whose module is beside the data": (info("moduleName", to="evil_features"), None),
    "splits a string": (info("splits", to="train"), INFO),
    "splits of numbers": (info("splits", to=[1, 2]), INFO),
    "splits missing": (info("splits", to=[]), "no train split"),
    "splits null": (info("splits", to=None), INFO),
    "a split twice": (info("splits", to=lambda old: [old[0], *old]), INFO),
    "a split without a name": (split("name", to=None), INFO),
    "a split of a nested name": (split("name", to=["train"]), INFO),
    "ten thousand further splits": (
        info("splits", to=lambda old: [{"name": f"s{i}" * 9, "shardLengths": []} for i in range(10_000)]),
        "no train split",
    ),
    "lengths missing": (split("shardLengths", to=None), INFO),
    "lengths negative": (split("shardLengths", to=["-12"]), INFO),
    "lengths not a number": (split("shardLengths", to=["many"]), INFO),
    "lengths in Arabic digits": (split("shardLengths", to=["\u0661\u0662"]), INFO),
    "lengths of true": (split("shardLengths", to=[True]), INFO),
    "lengths a fraction": (split("shardLengths", to=[12.5]), INFO),
    "lengths of 10^12 examples": (split("shardLengths", to=["1000000000000"]), TRAIN),
    "lengths of 10^30 examples": (split("shardLengths", to=["1" + "0" * 30]), INFO),
    "lengths of one more example": (split("shardLengths", to=["13"]), TRAIN),
    "lengths of one example less": (split("shardLengths", to=["11"]), TRAIN),
    "lengths zero": (split("shardLengths", to=["0"]), "no examples"),
    "a million shards": (split("shardLengths", to=["12"] * 1_000_000), INFO),
    "a template to another folder": (split("filepathTemplate", to="../../../etc/{DATASET}"), INFO),
    "a template of the root": (split("filepathTemplate", to="/etc/passwd"), INFO),
    "a template with a format's attribute": (split("filepathTemplate", to="{SPLIT.__class__}"), INFO),
    "a template that is no string": (split("filepathTemplate", to=7), INFO),
    "a template of another file": (split("filepathTemplate", to=INFO), INFO),
    # features.json
    "features missing": (gone(FEATURES), FEATURES),
    "features empty": (content(FEATURES, b""), FEATURES),
    "features half": (cut(FEATURES, 0.5), FEATURES),
    "features nested": (content(FEATURES, NESTED), FEATURES),
    "features null": (content(FEATURES, b"null"), FEATURES),
    "features of 2019": (content(FEATURES, b'{"type": "evil_features.Feature", "content": {}}'), FEATURES),
    "features without a class": (edited(FEATURES, "pythonClassName", to=None), FEATURES),
    "features of a class beside the data": (content(FEATURES, json.dumps(EVIL).encode()), FEATURES),
    "features of a number": (edited(FEATURES, "featuresDict", "features", to=3), FEATURES),
    "an image of a class beside the data": (feature("image", EVIL), FEATURES),
    "a label of a class beside the data": (feature("label", EVIL), FEATURES),
    "a further feature of a class beside the data": (feature("extra", EVIL), FEATURES),
    "a class beside the data in a sequence": (
        feature(
            "extra",
            {
                "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
                "sequence": {"feature": EVIL},
            },
        ),
        FEATURES,
    ),
    "a class that is nearly known": (
        feature("extra", {"pythonClassName": "tensorflow_datasets.core.features.evil.Image"}),
        FEATURES,
    ),
    "a class that is no name": (feature("extra", {"pythonClassName": ["os.system"]}), FEATURES),
    "a further feature nested": (content(FEATURES, NESTED_OBJECTS.replace(b"splits", b"featuresDict")), FEATURES),
    "an image that is a number": (feature("image", 3), FEATURES),
    "an image that is a label": (
        feature("image", {"pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel"}),
        FEATURES,
    ),
    "an image without a shape": (image("shape", {}), "uint8 [H, W, C]"),
    "an image whose shape is null": (image("shape", None), FEATURES),
    "an image of 10^6 x 10^6": (side("1000000", "1000000", "1"), "memory"),
    "an image of 10^17 x 10^17": (side("1" + "0" * 17, "1" + "0" * 17, "1"), "memory"),
    "an image of 10^30": (side("1" + "0" * 30, "8", "1"), FEATURES),
    "an image of 0 rows": (side("0", "8", "1"), FEATURES),
    "an image of -8 rows": (side("-8", "8", "1"), FEATURES),
    "an image of words": (side("eight", "8", "1"), FEATURES),
    "an image of a nested shape": (side(["8"], "8", "1"), FEATURES),
    "an image of 2 dimensions": (side("8", "8"), "uint8 [H, W, C]"),
    "an image of 7 channels": (side("8", "8", "7"), TRAIN),
    "an image of another declared size": (side("8", "9", "1"), TRAIN),
    "an image of an unknown dtype": (image("dtype", "uint7"), "uint7"),
    "an image of objects": (image("dtype", "object"), "object"),
    "an image whose dtype is a list": (image("dtype", ["uint8"]), FEATURES),
    "a label of 0 classes": (label("classLabel", {"numClasses": "0"}), None),
    "a label of -3 classes": (label("classLabel", {"numClasses": "-3"}), FEATURES),
    "a label of ten classes in words": (label("classLabel", {"numClasses": "ten"}), FEATURES),
    "a label of 10^30 classes": (label("classLabel", {"numClasses": "1" + "0" * 30}), FEATURES),
    "a label that is a list": (label("classLabel", ["numClasses"]), FEATURES),
    "names of labels nested": (lambda folder: (folder / "label.labels.txt").write_bytes(NESTED), None),
    # record files
    "train empty": (content(TRAIN, b""), TRAIN),
    "train half": (cut(TRAIN, 0.5), TRAIN),
    "train without its end": (cut(TRAIN, 0.999), TRAIN),
    "train of zeros": (content(TRAIN, bytes(2**17)), TRAIN),
    "train of text": (content(TRAIN, b"no records" * 10_000), TRAIN),
    "train with a byte of its data flipped": (flipped(TRAIN, 300), TRAIN),
    "train missing": (gone(TRAIN), f"{TRAIN} is missing"),
    "train a folder": (other(TRAIN, pathlib.Path.mkdir), TRAIN),
    "train a pipe": (other(TRAIN, os.mkfifo), TRAIN),
    "train a link to nothing": (other(TRAIN, lambda f: f.symlink_to("nothing")), TRAIN),
    "train a link to itself": (other(TRAIN, lambda f: f.symlink_to(f)), TRAIN),
    "train the device of zeros": (other(TRAIN, lambda f: f.symlink_to("/dev/zero")), TRAIN),
    "features a pipe": (other(FEATURES, os.mkfifo), FEATURES),
    "features a link to itself": (other(FEATURES, lambda f: f.symlink_to(f)), FEATURES),
    "a further link to nothing": (lambda folder: (folder / "extra").symlink_to("nothing"), None),
    # records
    "one record less": (record(None), TRAIN),
    "a record that is empty": (record(b""), TRAIN),
    "a record that is truncated": (record(example(GREY, 1)[:40]), TRAIN),
    "a record of text": (record(b"a record of another kind"), TRAIN),
    "a record of nested messages": (record(b"\x0a\xff\xff\xff\x7f" * 1000), TRAIN),
    "a record of 64 MiB": (record(bytes(64 * 2**20)), TRAIN),
    "a record without an image": (record(example(None, 1)), TRAIN),
    "a record of two images": (record(example([GREY, GREY], 1)), TRAIN),
    "a record whose image is a float": (record(KEYS.SerializeToString()), TRAIN),
    "a record without a label": (record(example(GREY)), TRAIN),
    "a record of two labels": (record(example(GREY, [1, 1])), TRAIN),
    "a record whose label is -1": (record(example(GREY, -1)), None),
    "a record whose label is 10^9": (record(example(GREY, 10**9)), None),
    "a record whose label is 2^40": (record(example(GREY, 2**40)), None),
    # images
    "an image that is empty": (record(example(b"", 1)), TRAIN),
    "an image that is truncated": (record(example(GREY[:-30], 1)), TRAIN),
    "an image of text": (record(example(b"GIF89a no image", 1)), TRAIN),
    "an image of another size": (record(example(png(np.zeros((9, 8, 1), np.uint8)), 1)), TRAIN),
    "an image of its transpose's size": (
        both(side("8", "4", "1"), record(example(png(np.zeros((4, 8, 1), np.uint8)), 1), 0)),
        TRAIN,
    ),
    "an image of three channels": (record(example(png(np.zeros((8, 8, 3), np.uint8)), 1)), TRAIN),
    "an image of a palette": (record(example(png(PIL.Image.new("P", (8, 8), 3)), 1)), TRAIN),
    "an image of 16 bits": (record(example(png(PIL.Image.new("I;16", (8, 8), 1000)), 1)), TRAIN),
    "an image of grey and alpha": (record(example(png(PIL.Image.new("LA", (8, 8))), 1)), TRAIN),
    "an image of CMYK": (record(example(png(PIL.Image.new("CMYK", (8, 8)), format="JPEG"), 1)), TRAIN),
    "an image as TIFF": (record(example(png(PIL.Image.new("L", (8, 8)), format="TIFF"), 1)), TRAIN),
    "an image as PostScript": (record(example(POSTSCRIPT, 1)), TRAIN),
    "an image of 60,000 x 60,000": (record(example(bomb(60_000, 60_000), 1)), TRAIN),
    "an image of 10,000 x 10,000": (record(example(bomb(10_000, 10_000, lines=zlib.compress(bytes(10**8))), 1)), TRAIN),
    "an image of 2^31 x 2^31": (record(example(bomb(2**31 - 1, 2**31 - 1), 1)), TRAIN),
    "an image of 0 x 0": (record(example(bomb(0, 0), 1)), TRAIN),
    "an image with 64 MiB of text": (record(example(bomb(8, 8, extra=chunk(b"zTXt", b"k\0\0" + ZEROS)), 1)), TRAIN),
    "an image with 64 MiB of profile": (record(example(bomb(8, 8, extra=chunk(b"iCCP", b"k\0\0" + ZEROS)), 1)), TRAIN),
    "an image whose lines end early": (record(example(bomb(8, 8, lines=zlib.compress(bytes(20))), 1)), TRAIN),
    "an image of 64 MiB of lines": (record(example(bomb(8, 8, lines=ZEROS), 1)), None),
}


@pytest.mark.parametrize("row", TABLE)
@pytest.mark.timeout(60)
def test_hostile_data_are_read_or_refused_by_name(row, good, cache, tmp_path, monkeypatch, capfd):
    damage, named = TABLE[row]
    shutil.copytree(good, tmp_path / "data")
    folder = tmp_path / "data" / "small" / "1.0.0"
    (folder / "evil_features.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    damage(folder)
    if named is None:
        assert sources.load("small", str(tmp_path / "data")).spec.shape == SHAPE
    else:
        with pytest.raises(UserError) as caught:
            sources.load("small", str(tmp_path / "data"))
        message = str(caught.value)
        assert named in message
        assert "small" in message
        assert len(message.splitlines()) <= 3
        assert max(map(len, message.splitlines())) < 600
        assert not list(cache.rglob("*"))  # nothing that is half decoded is kept
    assert not (folder / "ran").exists()
    assert "evil_features" not in sys.modules
    assert capfd.readouterr() == ("", "")


def test_no_flipped_bit_of_a_record_file_changes_the_data(good, cache, tmp_path):
    shutil.copytree(good, tmp_path / "data")
    file = tmp_path / "data" / "small" / "1.0.0" / TRAIN
    whole, refused = file.read_bytes(), 0
    expected = sources.load("small", str(tmp_path / "data")).spec
    for position in np.flatnonzero(np.frombuffer(whole, np.uint8))[::23]:
        flipped(TRAIN, position)(file.parent)
        try:
            spec = sources.load("small", str(tmp_path / "data")).spec
        except UserError:
            refused += 1
        else:
            assert spec == expected
        file.write_bytes(whole)
    assert refused > 50


# name of data set, data_dir below the temporary folder -> what the message must name
NAMES = {
    "a name of 300 letters": ("s" * 300, "data", "There is no data set"),
    "a version of 300 digits": ("small:" + "9" * 300 + ".0.0", "data", "not prepared"),
    "a version in Arabic digits": ("small:\u0661.\u0660.\u0660", "data", "There is no data set"),
    "a zero byte": ("small\0", "data", "There is no data set"),
    "a line break": ("small\n", "data", "There is no data set"),
    "a folder above": ("..", "data", "There is no data set"),
    "a configuration above": ("small/..", "data", "There is no data set"),
    "a data folder of 300 letters": ("small", "d" * 300, "d" * 300),
    "a data folder with a zero byte": ("small", "d\0", "does not exist"),
    "a data folder that is a file": ("small", "data/small/1.0.0/features.json", "not a folder"),
    "a data folder in a cloud": ("small", "gs://bucket/tfds", "gs://bucket/tfds"),
    "a data folder of another user": ("small", "~nobody-of-this-name/tfds", "~nobody-of-this-name"),
}


@pytest.mark.parametrize("row", NAMES)
def test_odd_names_and_folders_are_refused(row, good, cache, tmp_path, monkeypatch):
    name, data_dir, named = NAMES[row]
    shutil.copytree(good, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        sources.load(name, data_dir)
    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert errors.report(caught.value) == 2


def manifest(change):
    def damage(entry):
        file = entry / "manifest.json"
        tree = json.loads(file.read_text())
        change(tree)
        file.write_text(json.dumps(tree))

    return damage


CACHES = {
    "manifest empty": content("manifest.json", b""),
    "manifest nested": content("manifest.json", NESTED),
    "manifest not UTF-8": content("manifest.json", b"\xff"),
    "manifest a pipe": other("manifest.json", os.mkfifo),
    "manifest without facts": manifest(lambda tree: tree.pop("facts")),
    "facts a list": manifest(lambda tree: tree.update(facts=[])),
    "facts empty": manifest(lambda tree: tree.update(facts={})),
    "facts of words": manifest(lambda tree: tree.update(facts={"levels": "many", "num_classes": "few"})),
    "facts of 7 levels": manifest(lambda tree: tree["facts"].update(levels=7)),
    "arrays none": manifest(lambda tree: tree.update(arrays=[])),
    "arrays without a split": manifest(lambda tree: tree["arrays"].pop()),
    "arrays of a path": manifest(lambda tree: tree["arrays"][0].update(name="../../x")),
    "an array empty": content("train.x.npy", b""),
    "an array half": cut("train.x.npy", 0.5),
    "an array a pipe": other("train.x.npy", os.mkfifo),
    "an array of another header": content("train.x.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16),
    "an array of 10^15 bytes": content(
        "train.x.npy",
        b"\x93NUMPY\x01\x00\x60\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(95)
        + b"\n",
    ),
    "an array that is a pickle": content("train.x.npy", b"cos\nsystem\n(S'touch ran'\ntR."),
}


@pytest.mark.parametrize("row", CACHES)
@pytest.mark.timeout(60)
def test_a_damaged_cache_is_decoded_again(row, good, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sources.load("small", str(good))
    (entry,) = cache.iterdir()
    CACHES[row](entry)
    after = sources.load("small", str(good))
    assert after.spec == before.spec
    np.testing.assert_array_equal(after.splits["train"]["x"], before.splits["train"]["x"])
    assert not (tmp_path / "ran").exists()
