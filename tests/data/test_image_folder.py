"""Folders of images: classes, splits, sizes, damaged files, the cache."""

import os
import pathlib

import numpy as np
import PIL.Image
import pytest

from gm_jax.data import image_files, image_folder, sources
from gm_jax.errors import UserError
from tests.data.tfds_examples import png

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    """A separate cache per test."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def put(path: pathlib.Path, shape=(4, 5, 3), value: int | None = None, **options) -> np.ndarray:
    """Writes an image and returns its pixels."""
    pixels = RNG.integers(0, 256, shape) if value is None else np.full(shape, value)
    pixels = pixels.astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(PIL.Image.fromarray(pixels), **options))
    return pixels


def load(folder, size=None):
    return sources.load(f"folder:{folder}", size=size)


def message_of(folder, size=None) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, size)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_a_flat_folder_has_no_labels_and_every_image_is_in_one_split(tmp_path):
    images = [put(tmp_path / f"{number:02d}.png") for number in range(30)]
    spec, splits = load(tmp_path)
    assert spec[:4] == (f"folder:{tmp_path}", (4, 5, 3), 256, None)
    assert spec.cut == "validation, test: 1/10 of train each"
    assert [len(arrays["x"]) for arrays in splits.values()] == [24, 3, 3]
    assert all(set(arrays) == {"x"} for arrays in splits.values())
    together = np.concatenate([arrays["x"] for arrays in splits.values()]).reshape(30, -1)
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(np.reshape(images, (30, -1)), axis=0))


def test_subfolders_are_classes_in_alphabetical_order_at_any_depth(tmp_path):
    for name, value in (("cat", 10), ("bird", 20), ("ant", 30)):
        for number in range(4):
            put(tmp_path / name / ("deep/er" if number else "") / f"{number}.PNG", (3, 3), value)
    (tmp_path / "empty").mkdir()
    spec, splits = load(tmp_path)
    assert (spec.shape, spec.num_classes) == ((3, 3, 1), 3)
    for arrays in splits.values():
        np.testing.assert_array_equal(arrays["x"][:, 0, 0, 0], np.array([30, 20, 10])[arrays["label"]])
        assert arrays["label"].dtype == np.int32


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    for number in (2, 10, 1):
        put(tmp_path / str(number) / "a.png", (3, 3), number)
    _, splits = load(tmp_path)
    found = {int(a["label"][0]): int(a["x"][0, 0, 0, 0]) for a in splits.values()}
    assert found == {0: 1, 1: 2, 2: 10}


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_splits_that_a_folder_ships_are_used(tmp_path, validation):
    for split, value in (("train", 10), (validation, 20), ("test", 30)):
        for name in ("b", "a"):
            put(tmp_path / split / name / "0.png", (3, 3), value + (name == "a"))
    spec, splits = load(tmp_path)
    assert (spec.num_classes, spec.cut) == (2, None)
    assert {split: arrays["x"][:, 0, 0, 0].tolist() for split, arrays in splits.items()} == {
        "train": [11, 10],
        "validation": [21, 20],
        "test": [31, 30],
    }
    assert all(arrays["label"].tolist() == [0, 1] for arrays in splits.values())


def test_grey_alone_has_one_channel_and_beside_colour_three(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png", (4, 5))
    assert load(tmp_path).spec.shape == (4, 5, 1)
    put(tmp_path / "3.png", (4, 5, 4))
    assert load(tmp_path).spec.shape == (4, 5, 3)


def test_two_values_are_binary(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png", (3, 3), 255 * (number % 2))
    for _ in range(2):  # decoded, then from the cache
        spec, splits = load(tmp_path)
        assert (spec.levels, spec.measure) == (2, "binary")
        assert max(int(arrays["x"].max()) for arrays in splits.values()) == 1


def test_images_of_two_sizes_ask_for_a_size_and_are_resized_to_it(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png", (8, 6, 3), 40)
    put(tmp_path / "z.jpg", (20, 31, 3), 40, format="JPEG")
    assert message_of(tmp_path) == (
        f"{tmp_path / 'z.jpg'} has 20x31 pixels, and 0.png has 8x6: give --data.size N, to which the centre of every "
        "image is resized."
    )
    spec, splits = load(tmp_path, size=7)
    assert spec.shape == (7, 7, 3)
    assert all(abs(arrays["x"].astype(int) - 40).max() <= 1 for arrays in splits.values())


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda file: file.write_bytes(b""), "is empty: repair it, or move it away"),
        (lambda file: file.write_bytes(file.read_bytes()[:-20]), "cannot be decoded"),
        (lambda file: file.write_bytes(b"<html>not found</html>"), "is not a PNG or JPEG image: repair it"),
        (lambda file: (file.unlink(), file.symlink_to("nowhere")), "is not a regular file"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "is not a regular file"),
    ],
    ids=["empty", "cut short", "no image", "link to nothing", "pipe"],
)
def test_a_damaged_file_is_named_and_nothing_is_cached(tmp_path, cache_home, spoil, fault):
    for number in range(5):
        put(tmp_path / f"{number}.png")
    spoil(tmp_path / "3.png")
    assert message_of(tmp_path).startswith(f"{tmp_path / '3.png'} {fault}")
    assert list(cache_home.rglob("*.npy")) == []


def test_more_pixels_than_allowed_are_refused_by_name(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png", (4, 4))
    PIL.Image.new("1", (2**14, 2**13 + 1)).save(tmp_path / "bomb.png")
    assert "bomb.png declares more than 128 million pixels" in message_of(tmp_path, size=4)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (["a.png", "cats/b.png"], "has images (a.png) beside subfolders of images (cats)"),
        (["a.png", "b.webp"], "b.webp is not a PNG or JPEG image: convert it, or move it away"),
        (["cats/a.png", "cats/b.tiff"], "b.tiff is not a PNG or JPEG image"),
        (["notes.txt"], "has no PNG or JPEG images"),
        ([], "has no PNG or JPEG images"),
        (["a.png", "b.png"], "has 2 examples to train on, too few"),
        (["train/a.png", "test/cats/a.png"], "has classes in some of its splits only"),
        (["train/a.png", "val/a.png", "validation/a.png"], "has both 'val' and 'validation'"),
    ],
)
def test_a_folder_of_another_form_is_refused(tmp_path, files, fault):
    for file in files:
        put(tmp_path / file) if file.endswith(".png") else (tmp_path / file).parent.mkdir(exist_ok=True)
        if not file.endswith(".png"):
            (tmp_path / file).write_bytes(b"x")
    assert fault in message_of(tmp_path)


def test_hidden_files_and_other_files_are_ignored(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".thumbnails").mkdir()
    put(tmp_path / ".thumbnails" / "0.png", (2, 2))
    (tmp_path / "readme.txt").write_text("hello")
    assert load(tmp_path).spec.shape == (4, 5, 3)


def test_the_second_load_is_from_the_cache_until_a_file_changes(tmp_path, monkeypatch):
    for number in range(4):
        put(tmp_path / "a" / f"{number}.png")
    first = load(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(image_files, "decode", None)  # calling it would raise
        second = load(tmp_path)
    assert second.spec == first.spec
    for split, arrays in first.splits.items():
        np.testing.assert_array_equal(arrays["x"], second.splits[split]["x"])
        np.testing.assert_array_equal(arrays["label"], second.splits[split]["label"])
    put(tmp_path / "a" / "3.png")
    assert load(tmp_path).spec.fingerprint != first.spec.fingerprint


def test_a_cache_entry_of_another_form_is_decoded_again(tmp_path, monkeypatch):
    for number in range(4):
        put(tmp_path / f"{number}.png")
    first = load(tmp_path)
    read = image_folder.array_cache.read
    for spoil in (
        lambda splits, facts: {"facts": {**facts, "levels": 7}},
        lambda splits, facts: {"facts": {}},
        lambda splits, facts: {"splits": {"train": splits["train"]}},
        lambda splits, facts: {"facts": {**facts, "num_classes": 3}},
        lambda splits, facts: {"splits": {**splits, "test": {}}},
    ):

        def spoiled(entry, spoil=spoil):
            stored = read(entry)
            assert stored is not None
            return stored._replace(**spoil(stored.splits, stored.facts))

        monkeypatch.setattr(image_folder.array_cache, "read", spoiled)
        assert load(tmp_path).spec == first.spec


def test_a_relative_path_starts_from_the_working_directory_or_the_data_folder(tmp_path, monkeypatch):
    for number in range(3):
        put(tmp_path / "photos" / "birds" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")  # is not for one's own data
    fingerprint = load("photos/birds").spec.fingerprint
    assert sources.load("folder:birds", str(tmp_path / "photos")).spec.fingerprint == fingerprint
    name, data_dir = sources.located("folder:photos/birds/", None)
    assert (name, data_dir) == ("folder:birds", str(tmp_path / "photos"))
    monkeypatch.chdir("/")
    assert sources.load(name, data_dir).spec.fingerprint == fingerprint
    assert sources.located(f"folder:{tmp_path}/photos/birds", "/data") == (name, data_dir)
    assert sources.located("mnist", "x") == ("mnist", "x")
    assert "is not a folder" in message_of("nothing")
    assert "does not name a path of this machine" in message_of("gs://bucket/birds")
