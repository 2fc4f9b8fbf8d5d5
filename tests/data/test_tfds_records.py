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


def decoded(found):
    """Decodes the train split: images [N, H, W, C], labels."""
    images, labels = zip(*tfds_records.decode_split(found, "train"), strict=True)
    return np.stack(images), list(labels)


def test_files_follow_one_another_and_empty_ones_are_skipped(tmp_path):
    images = np.random.default_rng(0).integers(0, 200, (5, 4, 5, 1)).astype(np.uint8)
    records = [example(png(image), label) for label, image in enumerate(images)]
    found = contents(tmp_path, records[:2], [], records[2:], num_classes=9)
    x, labels = decoded(found)
    np.testing.assert_array_equal(x, images)
    assert (x.dtype, labels) == (np.uint8, list(range(5)))
    assert tfds_records.num_records(found, "train") == 5


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_images_of_one_to_four_channels_are_read(tmp_path, mode, channels):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, channels)).astype(np.uint8)
    encoded = png(PIL.Image.fromarray(image.squeeze(-1) if channels == 1 else image, mode))
    x, labels = decoded(contents(tmp_path, [example(encoded)], shape=image.shape))
    np.testing.assert_array_equal(x, image[None])
    assert labels == [None]


def test_jpeg_images_are_read(tmp_path):
    image = PIL.Image.new("RGB", (5, 4), (10, 100, 200))
    encoded = example(png(image, format="JPEG", quality=100))
    x, _ = decoded(contents(tmp_path, [encoded], shape=(4, 5, 3)))
    assert np.abs(x - np.array([10.0, 100.0, 200.0])).max() <= 2


def test_pixels_of_one_bit_agree_with_those_of_eight(tmp_path):
    image = PIL.Image.fromarray(np.eye(4, 5, dtype=np.uint8) * 255)
    records = [example(png(image)), example(png(image.convert("1")))]
    x, _ = decoded(contents(tmp_path, records))
    np.testing.assert_array_equal(x[0], x[1])
    assert np.unique(x).tolist() == [0, 255]


@pytest.mark.parametrize(("stored", "read"), [(-1, -1), (-(2**40), -(2**31)), (2**40, 2**31 - 1)])
def test_labels_out_of_range_stay_out_of_range(tmp_path, stored, read):
    records = [example(png(np.zeros((4, 5, 1), np.uint8)), stored)]
    assert decoded(contents(tmp_path, records, num_classes=3))[1] == [read]


def test_the_message_for_an_unfit_image_names_file_record_and_sizes(tmp_path):
    records = [example(png(np.zeros((4, 5, 1), np.uint8))), example(png(np.zeros((5, 4, 3), np.uint8)))]
    with pytest.raises(UserError) as caught:
        decoded(contents(tmp_path, records))
    assert str(caught.value) == (
        f"{tmp_path / 'shard0'} has a record, number 1, whose image is 5x4 of mode RGB, where features.json has 4x5x1: "
        "copy or prepare the data set again."
    )
