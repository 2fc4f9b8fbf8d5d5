"""TFDS image sets: small ones, written here file by file, and the real ones if they are present (slow)."""

import json
import socket

import numpy as np
import PIL.Image
import pytest

from gm_jax.data import sources, tfds_sources
from gm_jax.errors import UserError
from tests.data.tfds_examples import example, examples, image_feature, label_feature, png, prepare, write_records


@pytest.fixture(autouse=True)
def cache_home(request, tmp_path_factory, monkeypatch):
    """A separate cache per test; slow tests share one, so that each real set is decoded once."""
    slow = request.node.get_closest_marker("slow")
    home = tmp_path_factory.getbasetemp() / "real_cache" if slow else tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


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
    monkeypatch.setattr(tfds_sources, "decode_split", None)  # calling it would raise
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
def test_the_message_for_an_unprepared_set_shows_how_to_prepare_it(name, tmp_path, monkeypatch):
    def refuse(*args):
        raise AssertionError("the network is asked, which may take minutes where there is none")

    for name_of_call in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name_of_call, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    message = message_of(name, tmp_path)
    assert "pip install -e '.[prepare]'" in message
    assert (
        f"tfds.builder('{name}', data_dir='{tmp_path}', file_format='array_record').download_and_prepare()" in message
    )


def test_the_message_for_an_unprepared_set_names_what_is_prepared(tmp_path):
    assert "The folder has" not in message_of("cifar10", tmp_path)
    for name, config in (("cifar10_jpeg", None), ("mnist", None), ("mine", "blur")):
        prepare(tmp_path, {"train": examples(6), "test": examples(2)}, name=name, config=config)
    (tmp_path / "empty").mkdir()
    assert "downloads nothing. The folder has cifar10_jpeg, mine, mnist. If" in message_of("cifar10", tmp_path)
    for name in ("a", "b", "c"):
        prepare(tmp_path, {"train": examples(6), "test": examples(2)}, name=name)
    assert "The folder has a, b, c, cifar10_jpeg, mine and more." in message_of("cifar10", tmp_path)


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


def test_a_set_without_a_train_split_is_refused(tmp_path):
    prepare(tmp_path, {name: examples(6) for name in ("test", "validation")})
    assert "has no train split, only test, validation: choose" in message_of("tiny", tmp_path)


@pytest.mark.parametrize(
    ("shipped", "sizes", "cut"),
    [
        (["train"], (16, 2, 2), "validation, test: 1/10 of train each"),
        (["train", "validation"], (18, 20, 2), "test: 1/10 of train"),
        (["train", "test"], (17, 3, 20), "validation: last 1/6 of train"),
        (["train", "validation", "test"], (20, 20, 20), None),
    ],
)
def test_splits_that_a_set_does_not_ship_are_cut_by_a_rule_that_the_spec_states(tmp_path, shipped, sizes, cut):
    made = {name: examples(20, seed=seed) for seed, name in enumerate(shipped)}
    prepare(tmp_path, made)
    for _ in range(2):  # decoded, then from the cache
        spec, splits = sources.load("tiny", str(tmp_path))
        assert spec.cut == cut
        assert tuple(len(arrays["x"]) for arrays in splits.values()) == sizes
        for name in set(shipped) - {"train"}:
            np.testing.assert_array_equal(splits[name]["x"], made[name][0])
        parts = [splits[name] for name in ("train", "validation", "test") if name not in set(shipped) - {"train"}]
        together = np.concatenate([part["x"].reshape(len(part["x"]), -1) for part in parts])
        # Each shipped example is in one split.
        np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(made["train"][0].reshape(20, -1), axis=0))


def test_images_that_vary_in_size_are_resized_to_the_size_that_is_given(tmp_path):
    features = {"image": image_feature((None,) * 3)}
    folder = prepare(tmp_path, {"train": (examples(6)[0], None), "test": (examples(6)[0], None)}, features=features)
    for split, image in (("train", np.full((40, 20, 3), 50, np.uint8)), ("test", np.full((8, 30), 200, np.uint8))):
        encoded = png(PIL.Image.fromarray(image))
        write_records(folder / f"tiny-{split}.array_record-00000-of-00001", [example(encoded)] * 6)
    assert "vary in shape, (None, None, None): give --data.size N" in message_of("tiny", tmp_path)
    spec, splits = sources.load("tiny", str(tmp_path), size=8)
    assert spec.shape == (8, 8, 3)
    assert np.unique(splits["train"]["x"]).tolist() == [50]
    assert np.unique(splits["test"]["x"]).tolist() == [200]
    assert sources.load("tiny", str(tmp_path), size=16).spec.shape == (16, 16, 3)  # another entry of the cache


def test_images_of_one_size_are_resized_too_and_damaged_ones_are_named(tmp_path):
    folder = prepare(tmp_path, {"train": examples(12), "test": examples(5)})
    assert sources.load("tiny", str(tmp_path), size=2).spec.shape == (2, 2, 1)
    file = folder / "tiny-test.array_record-00000-of-00001"
    write_records(file, [example(png(np.zeros((4, 5, 1), np.uint8))[:-20])] * 5)
    with pytest.raises(UserError, match=f"{file} has a record, number 0, whose image cannot be decoded"):
        sources.load("tiny", str(tmp_path), size=2)


def test_a_set_with_a_missing_file_is_refused(tmp_path):
    folder = prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    (folder / "tiny-test.array_record-00000-of-00001").unlink()
    assert "tiny-test.array_record-00000-of-00001 is missing" in message_of("tiny", tmp_path)


def test_a_users_own_set_is_suggested_by_its_folder(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, name="my_own_set")
    assert "'my_own_set'" in message_of("my_own_sets", tmp_path)


@pytest.mark.parametrize(("label", "split"), [(7, "train"), (3, "validation"), (-1, "test"), (2**31, "train")])
def test_labels_out_of_range_are_refused_if_they_are_used(tmp_path, label, split):
    prepared = {name: examples(6, seed=seed) for seed, name in enumerate(("train", "validation", "test"))}
    prepared[split][1][4] = label
    prepare(tmp_path, prepared)
    spec, splits = sources.load("tiny", str(tmp_path))
    with pytest.raises(UserError) as caught:
        sources.check_labels(spec, splits)
    message = str(caught.value)
    assert f"the label {min(label, 2**31 - 1)} in its {split} split, and 3 classes" in message
    assert "(1 of 6 are not)" in message
    assert len(message.splitlines()) <= 3


def test_labels_in_range_secret_ones_and_none_pass(tmp_path):
    test = (examples(4)[0], np.full(4, -1))
    prepare(tmp_path, {"train": examples(6), "test": test})
    sources.check_labels(*sources.load("tiny", str(tmp_path)))
    prepare(tmp_path, {"train": (examples(6)[0], None), "test": (examples(4)[0], None)}, name="unlabelled")
    sources.check_labels(*sources.load("unlabelled", str(tmp_path)))
    sources.check_labels(*sources.load("digits"))


def test_absurdly_many_classes_are_refused_if_they_are_used(tmp_path):
    features = {"image": image_feature((4, 5, 1)), "label": label_feature(10**12)}
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, features=features)
    with pytest.raises(UserError, match="has 1000000000000 classes"):
        sources.check_labels(*sources.load("tiny", str(tmp_path)))


def test_without_a_home_the_message_asks_for_a_data_directory(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 12345678)  # a user id without a name
    for data_dir in (None, "~/tfds"):
        assert "There is no home directory" in message_of_any("mnist", data_dir)
        assert "--data.dir" in message_of_any("mnist", data_dir)
    assert sources.load("digits").spec.name == "digits"
    assert tfds_sources.absolute_data_dir("~/tfds") == "~/tfds"


def message_of_any(name, data_dir):
    with pytest.raises(UserError) as caught:
        sources.load(name, data_dir)
    return str(caught.value)


def test_a_data_directory_becomes_absolute_and_a_cloud_path_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert tfds_sources.absolute_data_dir("~/tfds") == str(tmp_path / "tfds")
    assert tfds_sources.absolute_data_dir("../tfds") == str(tmp_path.parent / "tfds")
    assert tfds_sources.absolute_data_dir("gs://bucket/tfds") == "gs://bucket/tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/tfds")
    prepare(tmp_path / "tfds", {"train": examples(6), "test": examples(2)})
    assert sources.load("tiny").spec.shape == (4, 5, 1)


@pytest.mark.parametrize("config", [None, "blur"])
@pytest.mark.parametrize("name", ["tiny", "1.9.0"])
def test_a_data_directory_that_is_itself_a_set_is_said(tmp_path, name, config):
    folder = prepare(tmp_path, {"train": examples(6), "test": examples(2)}, version="1.9.0", config=config)
    inside = [folder, folder.parent]
    for data_dir in inside:
        message = message_of(name, data_dir)
        assert f"{data_dir} is itself a prepared data set" in message
        assert "Did you mean" not in message
    if name == "tiny":
        assert f"the folder that contains it, {tmp_path}." in message_of(name, tmp_path / "tiny")


def test_a_set_that_has_moved_is_missed_with_the_name_of_the_flag(tmp_path):
    message = message_of("sq12", tmp_path / "moved")
    assert f"the folder '{tmp_path / 'moved'}' does not exist" in message
    assert "--data.dir (evaluate: --data-dir)" in message
    assert "which does not exist" in message_of("mnist", tmp_path / "moved")
    for name in ("sq12", "mnist"):  # also if the folder that held it is still there
        assert f"{tmp_path}" in message_of(name, tmp_path)
        assert "--data.dir (evaluate: --data-dir)" in message_of(name, tmp_path)


def test_a_folder_that_is_not_a_prepared_set_is_named(tmp_path):
    (tmp_path / "pictures").mkdir()
    message = message_of("pictures", tmp_path)
    assert f"{tmp_path / 'pictures'} is not a prepared data set" in message
    assert f"--data.name folder:{tmp_path / 'pictures'}." in message


@pytest.mark.parametrize("data_exist", [True, False])
def test_data_of_ones_own_without_a_prefix_are_told_their_prefix(tmp_path, monkeypatch, data_exist):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    data_dir = tmp_path if data_exist else tmp_path / "moved"
    assert message_of("my.npz", data_dir).endswith("For arrays of your own use --data.name npz:my.npz.")
    for name in (str(tmp_path / "photos"), "./photos"):
        assert message_of(name, data_dir).endswith(f"For images of your own use --data.name folder:{name}.")
    assert "--data.name folder" not in message_of(str(tmp_path / "nowhere"), data_dir)


def test_only_prepared_sets_are_suggested(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, name="sqsqsq")
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, name="sqsqsr", config="blur")
    (tmp_path / "sqsqst").mkdir()
    message = message_of("sqsqs", tmp_path)
    assert "'sqsqsq'" in message
    assert "'sqsqsr'" in message
    assert "sqsqst" not in message
