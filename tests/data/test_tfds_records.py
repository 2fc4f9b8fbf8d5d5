"""Records become arrays, in the order on disk; test_hostile_data.py has the damaged ones."""

import numpy as np
import PIL.Image
import pytest

from gm_jax.data import tfds_records
from gm_jax.data.tfds_folder import Contents, Shard
from gm_jax.errors import UserError
from tests.data.tfds_examples import example, png, write_records


def contents(folder, *shards, shape=(4, 5, 1), num_classes=None):
    """Writes each list of records to a file of its own."""
    files = [folder / f"shard{index}" for index in range(len(shards))]
    for file, records in zip(files, shards, strict=True):
        write_records(file, records)
    listed = tuple(Shard(file, len(records)) for file, records in zip(files, shards, strict=True))
    return Contents(shape, "uint8", num_classes, {"train": listed})


def test_files_follow_one_another_and_empty_ones_are_skipped(tmp_path):
    images = np.random.default_rng(0).integers(0, 200, (5, 4, 5, 1)).astype(np.uint8)
    records = [example(png(image), label) for label, image in enumerate(images)]
    arrays, seen = tfds_records.decode_split(contents(tmp_path, records[:2], [], records[2:], num_classes=9), "train")
    np.testing.assert_array_equal(arrays["x"], images)
    np.testing.assert_array_equal(arrays["label"], np.arange(5))
    assert (arrays["x"].dtype, arrays["label"].dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(np.flatnonzero(seen), np.unique(images))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_images_of_one_to_four_channels_are_read(tmp_path, mode, channels):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, channels)).astype(np.uint8)
    encoded = png(PIL.Image.fromarray(image.squeeze(-1) if channels == 1 else image, mode))
    arrays, _ = tfds_records.decode_split(contents(tmp_path, [example(encoded)], shape=image.shape), "train")
    np.testing.assert_array_equal(arrays["x"], image[None])
    assert list(arrays) == ["x"]


def test_jpeg_images_are_read(tmp_path):
    image = PIL.Image.new("RGB", (5, 4), (10, 100, 200))
    encoded = example(png(image, format="JPEG", quality=100))
    arrays, _ = tfds_records.decode_split(contents(tmp_path, [encoded], shape=(4, 5, 3)), "train")
    assert np.abs(arrays["x"] - np.array([10.0, 100.0, 200.0])).max() <= 2


def test_pixels_of_one_bit_agree_with_those_of_eight(tmp_path):
    image = PIL.Image.fromarray(np.eye(4, 5, dtype=np.uint8) * 255)
    records = [example(png(image)), example(png(image.convert("1")))]
    arrays, seen = tfds_records.decode_split(contents(tmp_path, records), "train")
    np.testing.assert_array_equal(arrays["x"][0], arrays["x"][1])
    assert np.flatnonzero(seen).tolist() == [0, 255]


@pytest.mark.parametrize(("stored", "read"), [(-1, -1), (-(2**40), -(2**31)), (2**40, 2**31 - 1)])
def test_labels_out_of_range_stay_out_of_range(tmp_path, stored, read):
    records = [example(png(np.zeros((4, 5, 1), np.uint8)), stored)]
    arrays, _ = tfds_records.decode_split(contents(tmp_path, records, num_classes=3), "train")
    assert arrays["label"].tolist() == [read]


def test_more_than_the_memory_is_refused_before_it_is_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"The 1 examples of .*shard0 need 9.09e\+03 GB of memory"):
        tfds_records.decode_split(contents(tmp_path, [b""], shape=(3125000, 3125000, 1)), "train")


def test_the_message_for_an_unfit_image_names_file_record_and_sizes(tmp_path):
    records = [example(png(np.zeros((4, 5, 1), np.uint8))), example(png(np.zeros((5, 4, 3), np.uint8)))]
    with pytest.raises(UserError) as caught:
        tfds_records.decode_split(contents(tmp_path, records), "train")
    assert str(caught.value) == (
        f"{tmp_path / 'shard0'} has a record, number 1, whose image is 5x4 of mode RGB, where features.json has 4x5x1: "
        "copy or prepare the data set again."
    )
