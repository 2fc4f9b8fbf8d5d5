"""Arrays of one's own, from Python and from .npz files: names, shapes, levels, labels; hostile files."""

import io
import zipfile

import numpy as np
import pytest

from gm_jax.data import arrays, sources
from gm_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 6, 6, 3), np.uint8)
LABELS = np.arange(30) % 4
POINTS = RNG.normal(size=(30, 2))


def message_of(load, *args) -> str:
    with pytest.raises(UserError) as caught:
        load(*args)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def saved(folder, **named):
    np.savez(folder / "mine.npz", **named)
    return f"npz:{folder / 'mine.npz'}"


def test_images_and_labels_in_a_file_and_in_python_are_the_same_data(tmp_path):
    name = saved(tmp_path, images=IMAGES, labels=LABELS)
    spec, splits = sources.load(name)
    assert spec[:4] == (name, (6, 6, 3), 256, 4)
    assert spec.cut == "validation, test: 1/10 of train each"
    assert [len(part["x"]) for part in splits.values()] == [24, 3, 3]
    for part in splits.values():
        for image, label in zip(part["x"], part["label"], strict=True):
            np.testing.assert_array_equal(image, IMAGES[(image == IMAGES).all(axis=(1, 2, 3))][0])
            assert label == LABELS[(image == IMAGES).all(axis=(1, 2, 3))][0]
    for given in ((IMAGES, LABELS), {"x": IMAGES, "y": LABELS[:, None]}, {"train": {"x": IMAGES, "label": LABELS}}):
        source = sources.from_arrays(given, "mine")
        assert (source.spec.name, source.spec.fingerprint) == ("arrays:mine", spec.fingerprint)


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),  # Keras
        ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ],
)
def test_names_may_carry_the_split(tmp_path, names):
    values = (IMAGES[:20], LABELS[:20], IMAGES[20:], LABELS[20:])
    spec, splits = sources.load(saved(tmp_path, **dict(zip(names, values, strict=True))))
    assert spec.cut == "validation: 1/10 of train"
    np.testing.assert_array_equal(splits["test"]["x"], IMAGES[20:])
    np.testing.assert_array_equal(splits["test"]["label"], LABELS[20:])
    assert len(splits["train"]["x"]) == 18
    assert sources.from_arrays({"train": IMAGES, "val": IMAGES[:2], "test": IMAGES[:3]}).spec.cut is None


def test_points_are_float32_and_continuous():
    spec, splits = sources.from_arrays(POINTS)
    assert (spec.name, spec.shape, spec.levels, spec.num_classes) == ("arrays", (2,), None, None)
    assert splits["train"]["x"].dtype == np.float32
    assert (
        splits["train"]["x"].tolist()
        == POINTS.astype(np.float32)[np.sort(arrays.splits.cut_indices(30, "ab", "")[0])].tolist()
    )


def test_grey_images_get_a_channel_and_two_values_are_binary():
    grey = IMAGES[..., 0]
    assert sources.from_arrays(grey).spec.shape == (6, 6, 1)
    for binary in (grey > 99, (grey > 99) * np.uint8(255), (grey > 99).astype(np.uint8)):
        spec, splits = sources.from_arrays(binary)
        assert (spec.levels, int(splits["train"]["x"].max())) == (2, 1)
    assert grey.max() > 1  # what was given has not changed


def test_levels_are_given_by_name():
    spec, splits = sources.from_arrays({"x": IMAGES // 16, "levels": 17})
    assert spec.levels == 17
    assert splits["train"]["x"].max() == 15
    assert sources.from_arrays({"x": IMAGES.reshape(30, -1) // 16, "levels": np.array(16)}).spec.shape == (108,)


def test_images_are_resized_and_points_are_not():
    assert sources.from_arrays(IMAGES, size=4).spec.shape == (4, 4, 3)
    assert "--data.size 4 has no effect on data" in message_of(sources.from_arrays, POINTS, "mine", 4)


REFUSED = [
    ({"x": IMAGES / 255}, "images are uint8 levels from 0 to 255. Scale floats from [0, 1] by (255 * x).round()"),
    ({"x": IMAGES.astype(int)}, "x of data is int64 [30, 6, 6, 3]: give uint8 levels, by .astype(np.uint8)"),
    ({"x": IMAGES.transpose(0, 3, 1, 2)}, "with 1 to 4 channels, which come last"),
    ({"x": IMAGES[0, 0, 0]}, "x of data is uint8 [3]: give images [N, H, W] or [N, H, W, C], or points [N, D]"),
    ({"x": np.array(["a"] * 30)}, "give images [N, H, W]"),
    ({"x": np.array([[None, "a"]] * 30)}, "give uint8 levels"),
    ({"x": np.where(np.arange(30)[:, None] == 7, np.nan, POINTS)}, "1 rows are not finite, the first is number 7"),
    ({"x": IMAGES, "label": LABELS[:5]}, "has 5 labels of 30 train examples"),
    ({"x": IMAGES, "label": LABELS / 2}, "give labels as integers [N], from 0"),
    ({"x": IMAGES, "label": LABELS - 1}, "from -1 to 2: labels are from 0"),
    ({"x": IMAGES, "label": LABELS + 10**6}, "labels are from 0 to 999999"),
    ({"x": IMAGES, "label": LABELS.astype(str)}, "give labels as integers"),
    ({"x": IMAGES, "lable": LABELS}, "an array 'lable': the known names are x or images"),
    ({"x": IMAGES, "images": IMAGES}, "two arrays for x of the train split"),
    ({"y": LABELS}, "has no examples to train on"),
    ({"x_test": IMAGES}, "has no examples to train on"),
    ({"x_train": IMAGES, "x_test": IMAGES[:, :5]}, "does not fit the uint8 [30, 6, 6, 3] of train"),
    ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES}, "has x and label in train and x in test"),
    ({"x_train": IMAGES, "x_test": IMAGES[:0]}, "no examples in its test split"),
    ({"x": IMAGES[:2]}, "too few to cut validation and test"),
    ({"x": IMAGES, "levels": 17}, "has the level 255, and 17 levels"),
    ({"x": IMAGES, "levels": 1.5}, "is not a number from 2 to 256"),
]


@pytest.mark.parametrize(("given", "fault"), REFUSED, ids=[fault[:30] for _, fault in REFUSED])
def test_arrays_of_another_form_are_refused(given, fault):
    assert fault in message_of(sources.from_arrays, given)


def npz(folder, header=None, array=IMAGES, **options) -> str:
    """Writes an .npz whose array has this header, whatever it holds."""
    buffer = io.BytesIO()
    if header is None:
        np.save(buffer, array, **options)
    else:
        np.lib.format.write_array_header_1_0(buffer, header)
        buffer.write(array.tobytes())
    with zipfile.ZipFile(folder / "bad.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    return f"npz:{folder / 'bad.npz'}"


def test_an_array_that_declares_another_size_than_it_has_is_refused_before_it_is_allocated(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 6, 6, 3)}
    assert "x.npy does not have the size that it declares" in message_of(sources.load, npz(tmp_path, header))


def test_an_archive_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    name = npz(tmp_path, array=np.zeros((10_000, 32, 32, 1), np.uint8))
    assert (tmp_path / "bad.npz").stat().st_size < 100_000
    monkeypatch.setattr(arrays.memory, "physical", lambda: 1_000_000)
    monkeypatch.setattr(arrays.np, "load", None)  # calling it would raise
    assert "GB of memory; this machine has" in message_of(sources.load, name)


def test_python_objects_are_not_unpickled(tmp_path):
    name = npz(tmp_path, array=np.array([{"a": 1}]), allow_pickle=True)
    assert "an array holds Python objects, which are not read" in message_of(sources.load, name)


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"hello" * 100])
def test_what_is_no_npz_is_refused(tmp_path, data):
    (tmp_path / "bad.npz").write_bytes(data)
    assert "is not a readable .npz of arrays" in message_of(sources.load, f"npz:{tmp_path / 'bad.npz'}")


def test_a_damaged_npz_is_refused(tmp_path):
    saved(tmp_path, x=IMAGES)
    data = bytearray((tmp_path / "mine.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "mine.npz").write_bytes(data)
    assert "is not a readable .npz of arrays (Bad CRC-32" in message_of(sources.load, f"npz:{tmp_path / 'mine.npz'}")


def test_an_npz_with_any_flipped_byte_is_refused_or_read(tmp_path):
    with (tmp_path / "whole.npz").open("wb") as file:
        np.savez_compressed(file, x=IMAGES)
    whole, refused = (tmp_path / "whole.npz").read_bytes(), 0
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        data = bytearray(whole)
        data[place] ^= 0x55
        (tmp_path / "mine.npz").write_bytes(data)
        try:
            arrays.read_npz(tmp_path / "mine.npz")
        except UserError:
            refused += 1
    assert refused > 75


def test_a_missing_file_is_named(tmp_path):
    assert f"{tmp_path / 'no.npz'} is not a file" in message_of(sources.load, f"npz:{tmp_path / 'no.npz'}")


def test_arrays_of_python_cannot_be_loaded_by_their_name():
    for name in ("arrays", "arrays:mine"):
        assert "that only Python has" in message_of(sources.load, name)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("digits", "digits"),
        ("toy:two_moons", "two_moons"),
        ("wave:tones", "tones"),
        ("mnist:3.0.1", "mnist-3.0.1"),
        ("mnist_corrupted/identity", "mnist_corrupted-identity"),
        ("folder:/data/my birds/", "my-birds"),
        ("npz:../a/blobs.v2.npz", "blobs.v2"),
        ("arrays:mine", "mine"),
        ("arrays", "arrays"),
        ("folder:/", "data"),
    ],
)
def test_the_short_name_of_data_is_a_part_of_a_file_s_name(name, short):
    assert sources.short_name(name) == short
