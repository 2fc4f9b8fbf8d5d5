"""TFDS image sets: small ones, written here file by file, and the real ones if they are present (slow)."""

import io
import json
import os
import pathlib
import time

import numpy as np
import pytest

from gm_jax.data import array_cache, sources, tfds_sources
from gm_jax.errors import UserError

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "tfds"
REAL = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or SHARED)


def needs(name):
    return pytest.mark.skipif(not (REAL / name).is_dir(), reason=f"{name} is not prepared in {REAL}")


@pytest.fixture(autouse=True)
def cache_home(request, tmp_path_factory, monkeypatch):
    """A separate cache per test; slow tests share one, so that each real set is decoded once."""
    slow = request.node.get_closest_marker("slow")
    home = tmp_path_factory.getbasetemp() / "real_cache" if slow else tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def image_feature(shape, dtype="uint8"):
    dims = {"dimensions": ["-1" if side is None else str(side) for side in shape]}
    return {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {"dtype": dtype, "shape": dims, "encodingFormat": "png"},
    }


def label_feature(num_classes):
    return {
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": str(num_classes)},
    }


def prepare(data_dir, splits, name="tiny", version="1.0.0", config=None, features=None, file_format="array_record"):
    """Writes what `download_and_prepare` writes, without TensorFlow; splits: name -> (images, labels or None)."""
    import PIL.Image
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2

    folder = data_dir / name / (config or "") / version
    folder.mkdir(parents=True)
    first, labels = next(iter(splits.values()))
    if features is None:
        features = {"image": image_feature(first.shape[1:])}
        if labels is not None:
            features["label"] = label_feature(3)
    infos = []
    for split, (images, labels) in splits.items():
        file = folder / f"{name}-{split}.{file_format}-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
        for index, image in enumerate(images):
            example = example_pb2.Example()
            buffer = io.BytesIO()
            PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
            example.features.feature["image"].bytes_list.value.append(buffer.getvalue())
            if labels is not None:
                example.features.feature["label"].int64_list.value.append(int(labels[index]))
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        infos.append({"name": split, "filepathTemplate": template, "numBytes": "1", "shardLengths": [str(len(images))]})
    info = {"name": name, "version": version, "fileFormat": file_format, "splits": infos, "moduleName": "__main__"}
    if config:
        info["configName"] = config
    (folder / "dataset_info.json").write_text(json.dumps(info))
    tree = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (folder / "features.json").write_text(json.dumps(tree))
    return folder


def examples(num, seed=0, values=None, shape=(4, 5, 1)):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num, *shape), np.uint8) if values is None else rng.choice(values, (num, *shape))
    return images.astype(np.uint8), rng.integers(0, 3, num)


def test_images_and_labels_come_in_the_order_on_disk(tmp_path):
    train, test = examples(12), examples(5, seed=1)
    prepare(tmp_path, {"train": train, "test": test})
    spec, splits = sources.load("tiny", str(tmp_path))
    assert spec[:4] == ("tiny", (4, 5, 1), 256, 3)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"]["x"].dtype == np.uint8
    assert splits["train"]["label"].dtype == np.int32
    np.testing.assert_array_equal(splits["train"]["x"], train[0][:10])
    np.testing.assert_array_equal(splits["validation"]["x"], train[0][10:])  # the last sixth
    np.testing.assert_array_equal(splits["validation"]["label"], train[1][10:])
    np.testing.assert_array_equal(splits["test"]["x"], test[0])
    np.testing.assert_array_equal(splits["test"]["label"], test[1])


def test_more_examples_than_a_chunk_are_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_sources, "_CHUNK", 5)
    train = examples(12, shape=(3, 3, 3))
    prepare(tmp_path, {"train": train, "test": examples(6, shape=(3, 3, 3))})
    splits = sources.load("tiny", str(tmp_path)).splits
    np.testing.assert_array_equal(np.concatenate([splits["train"]["x"], splits["validation"]["x"]]), train[0])


def test_a_shipped_validation_split_is_used(tmp_path):
    train, validation = examples(6), examples(3, seed=2)
    prepare(tmp_path, {"train": train, "validation": validation, "test": examples(2)})
    splits = sources.load("tiny", str(tmp_path)).splits
    np.testing.assert_array_equal(splits["train"]["x"], train[0])
    np.testing.assert_array_equal(splits["validation"]["x"], validation[0])


@pytest.mark.parametrize("on", [1, 255])
def test_images_of_two_values_are_binary_in_either_encoding(tmp_path, on):
    train = examples(6, values=[0, on])[0]
    prepare(tmp_path, {"train": (train, None), "test": (train, None)})
    for _ in range(2):  # decoded, then from the cache
        spec, splits = sources.load("tiny", str(tmp_path))
        assert (spec.levels, spec.measure, spec.num_classes) == (2, "binary", None)
        assert list(splits["test"]) == ["x"]
        np.testing.assert_array_equal(splits["test"]["x"], train // on)


def test_images_of_the_values_1_and_255_are_not_binary(tmp_path):
    train = examples(6, values=[1, 255])[0]
    prepare(tmp_path, {"train": (train, None), "test": (train, None)})
    spec, splits = sources.load("tiny", str(tmp_path))
    assert spec.levels == 256
    np.testing.assert_array_equal(splits["test"]["x"], train)


def test_the_second_load_comes_from_the_cache_and_is_the_same(tmp_path, monkeypatch):
    prepare(tmp_path, {"train": examples(12), "test": examples(5, seed=1)})
    first = sources.load("tiny", str(tmp_path))
    monkeypatch.setattr(tfds_sources, "_decode", None)  # calling it would raise
    second = sources.load("tiny", str(tmp_path))
    assert second.spec == first.spec
    assert list(second.splits) == list(first.splits)


def test_data_that_are_prepared_again_are_not_read_from_the_cache(tmp_path):
    folder = prepare(tmp_path, {"train": examples(12), "test": examples(5)})
    first = sources.load("tiny", str(tmp_path)).spec.fingerprint
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    prepare(tmp_path, {"train": examples(12, seed=7), "test": examples(5)})
    assert sources.load("tiny", str(tmp_path)).spec.fingerprint != first


def test_an_unwritable_cache_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    prepare(tmp_path / "data", {"train": examples(12), "test": examples(5)})
    assert len(sources.load("tiny", str(tmp_path / "data")).splits["train"]["x"]) == 10


def test_the_newest_version_is_read_unless_one_is_named(tmp_path):
    for version, seed in (("2.0.0", 1), ("10.0.0", 2)):
        prepare(tmp_path, {"train": examples(6, seed=seed), "test": examples(2)}, version=version)
    newest = sources.load("tiny", str(tmp_path)).splits["train"]["x"]
    np.testing.assert_array_equal(newest, examples(6, seed=2)[0][:5])
    named = sources.load("tiny:2.0.0", str(tmp_path)).splits["train"]["x"]
    np.testing.assert_array_equal(named, examples(6, seed=1)[0][:5])


def test_a_configuration_is_named_after_a_slash(tmp_path):
    for config in ("blur", "noise"):
        prepare(tmp_path, {"train": examples(6), "test": examples(2)}, config=config)
    assert sources.load("tiny/noise:1.0.0", str(tmp_path)).spec.name == "tiny/noise:1.0.0"
    with pytest.raises(UserError, match="configurations: name one, such as 'tiny/blur'"):
        sources.load("tiny", str(tmp_path))


def test_the_default_data_directory_comes_from_the_environment(tmp_path, monkeypatch):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert sources.load("tiny", None).spec.shape == (4, 5, 1)


def test_without_the_environment_the_data_directory_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    prepare(tmp_path / "tensorflow_datasets", {"train": examples(6), "test": examples(2)})
    assert sources.load("tiny").spec.shape == (4, 5, 1)
    assert sources.load("tiny", "~/tensorflow_datasets").spec.shape == (4, 5, 1)


def message_of(name, data_dir):
    with pytest.raises(UserError) as caught:
        sources.load(name, str(data_dir))
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    return message


@pytest.mark.parametrize("name", ["mnist", "mnist:3.0.1", "cifar10"])
def test_the_message_for_an_unprepared_set_shows_how_to_prepare_it(name, tmp_path):
    start = time.perf_counter()
    message = message_of(name, tmp_path)
    assert time.perf_counter() - start < 10
    assert "pip install -e '.[prepare]'" in message
    assert (
        f"tfds.builder('{name}', data_dir='{tmp_path}', file_format='array_record').download_and_prepare()" in message
    )


def test_the_message_for_an_unprepared_version_lists_the_prepared_ones(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    assert "Version 9.0.0 of 'tiny' is not prepared" in message_of("tiny:9.0.0", tmp_path)


def test_the_message_for_tfrecord_files_asks_for_array_record(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, file_format="tfrecord")
    message = message_of("tiny", tmp_path)
    assert "prepared as tfrecord" in message
    assert "file_format='array_record'" in message


def test_a_missing_file_format_means_tfrecord(tmp_path):
    folder = prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["fileFormat"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert "prepared as tfrecord" in message_of("tiny", tmp_path)


def test_images_that_vary_in_shape_are_refused(tmp_path):
    features = {"image": image_feature((None, None, 3))}
    prepare(tmp_path, {"train": (examples(6)[0], None), "test": (examples(2)[0], None)}, features=features)
    assert "vary in shape, (None, None, 3)" in message_of("tiny", tmp_path)


def test_images_of_16_bits_are_refused(tmp_path):
    features = {"image": image_feature((4, 5, 1), dtype="uint16")}
    prepare(tmp_path, {"train": (examples(6)[0], None), "test": (examples(2)[0], None)}, features=features)
    assert "images of uint16" in message_of("tiny", tmp_path)


def test_a_set_without_images_is_refused(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, features={"label": label_feature(3)})
    assert "no feature 'image'" in message_of("tiny", tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_without_a_train_or_test_split_is_refused(tmp_path, split):
    shipped = {"train", "validation", "test"} - {split}
    prepare(tmp_path, {name: examples(6) for name in sorted(shipped)})
    assert f"has no {split} split, only {', '.join(sorted(shipped))}: choose" in message_of("tiny", tmp_path)


def test_a_set_with_a_missing_file_is_refused(tmp_path):
    folder = prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    (folder / "tiny-test.array_record-00000-of-00001").unlink()
    assert "tiny-test.array_record-00000-of-00001 is missing" in message_of("tiny", tmp_path)


def test_a_users_own_set_is_suggested_by_its_folder(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, name="my_own_set")
    assert "'my_own_set'" in message_of("my_own_sets", tmp_path)


@pytest.mark.slow
@needs("binarized_mnist")
def test_static_mnist_is_the_data_set_of_the_literature():
    spec, splits = sources.load("binarized_mnist", str(REAL))
    assert spec[:4] == ("binarized_mnist", (28, 28, 1), 2, None)
    assert {split: len(arrays["x"]) for split, arrays in splits.items()} == {
        "train": 50_000,
        "validation": 10_000,
        "test": 10_000,
    }
    assert all(set(np.unique(arrays["x"]).tolist()) == {0, 1} for arrays in splits.values())
    # Measured here, because the literature reports no means of this set.
    means = [arrays["x"].mean() for arrays in splits.values()]
    np.testing.assert_allclose(means, [0.130562, 0.131127, 0.132512], atol=1e-6)


@pytest.mark.slow
@needs("binarized_mnist")
def test_an_independent_bernoulli_has_the_reference_likelihood_on_static_mnist():
    splits = sources.load("binarized_mnist", str(REAL)).splits
    train, test = splits["train"]["x"], splits["test"]["x"].astype(np.float64)
    # Some pixels are never on in train. The reference does not state its smoothing: Laplace's rule gives its three
    # decimals; add-half and clipping at 1e-4 .. 1e-8 give 205.792 .. 205.801.
    mean = (train.sum(axis=0, dtype=np.float64) + 1) / (len(train) + 2)
    nll = -(test * np.log(mean) + (1 - test) * np.log(1 - mean)).sum(axis=(1, 2, 3)).mean()
    assert abs(nll - 205.793) < 5e-4


@pytest.mark.slow
@needs("mnist")
def test_mnist_is_split_as_in_the_literature():
    spec, splits = sources.load("mnist:3.0.1", str(REAL))
    assert spec[1:4] == ((28, 28, 1), 256, 10)
    assert [len(arrays["x"]) for arrays in splits.values()] == [50_000, 10_000, 10_000]
    train = np.concatenate([splits["train"]["x"], splits["validation"]["x"]])
    np.testing.assert_allclose([train.mean() / 255, train.std() / 255], [0.1307, 0.3081], atol=1e-4)
    np.testing.assert_array_equal(
        np.bincount(splits["test"]["label"]), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )


@pytest.mark.slow
@needs("mnist")
def test_a_real_set_is_the_same_from_the_cache(monkeypatch):
    first = sources.load("mnist", str(REAL)).spec
    monkeypatch.setattr(tfds_sources, "_decode", None)
    assert sources.load("mnist", str(REAL)).spec == first
    assert array_cache.read("nothing") is None


@pytest.mark.slow
@needs("cifar10_jpeg")
def test_colour_images_of_a_set_without_a_builder_class_are_read():
    spec, splits = sources.load("cifar10_jpeg", str(REAL))
    assert spec[1:4] == ((32, 32, 3), 256, 10)
    assert [len(arrays["x"]) for arrays in splits.values()] == [41_667, 8_333, 10_000]
