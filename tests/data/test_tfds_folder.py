"""What the JSON files of a prepared set say, read without TFDS; test_hostile_data.py has the damaged ones."""

import importlib
import json

import pytest

from gm_jax.data import tfds_folder
from gm_jax.data.tfds_folder import Shard
from tests.data.tfds_examples import examples, image_feature, label_feature, prepare

IN_TFDS = "tensorflow_datasets.core.features."


def change_info(folder, **fields):
    file = folder / "dataset_info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_shape_classes_and_files_are_read(tmp_path):
    folder = prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    assert tfds_folder.file_format(folder) == "array_record"
    assert tfds_folder.read_contents("tiny", folder) == (
        (4, 5, 1),
        "uint8",
        3,
        {
            "train": (Shard(folder / "tiny-train.array_record-00000-of-00001", 6),),
            "test": (Shard(folder / "tiny-test.array_record-00000-of-00001", 2),),
        },
    )


@pytest.mark.parametrize(
    ("template", "files"),
    [
        (None, ["tiny-train.array_record-00000-of-00002", "tiny-train.array_record-00001-of-00002"]),
        ("{SPLIT}.{SHARD_INDEX}.{FILEFORMAT}", ["train.00000.array_record", "train.00001.array_record"]),
        ("{DATASET}_{SHARD_X_OF_Y}", ["tiny_00000-of-00002", "tiny_00001-of-00002"]),
    ],
)
def test_files_are_named_by_the_template(tmp_path, template, files):
    folder = prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    split = {"name": "train", "shardLengths": ["4", "2"]}
    change_info(folder, splits=[split if template is None else {**split, "filepathTemplate": template}])
    shards = tfds_folder.read_contents("tiny", folder).splits["train"]
    assert shards == (Shard(folder / files[0], 4), Shard(folder / files[1], 2))


def test_further_features_of_tfds_are_ignored(tmp_path):
    box = {"pythonClassName": IN_TFDS + "bounding_boxes.BBoxFeature", "tensor": {"dtype": "float32"}}
    features = {
        "image": image_feature((4, 5, 3)),
        "label": label_feature(7),
        "boxes": {"pythonClassName": IN_TFDS + "sequence_feature.Sequence", "sequence": {"feature": box}},
        "text": {"pythonClassName": IN_TFDS + "text_feature.Text", "text": {}},
    }
    folder = prepare(tmp_path, {"train": examples(6, shape=(4, 5, 3)), "test": examples(2)}, features=features)
    assert tfds_folder.read_contents("tiny", folder)[:3] == ((4, 5, 3), "uint8", 7)


def test_a_label_of_another_class_is_not_a_label(tmp_path):
    text = {"pythonClassName": IN_TFDS + "text_feature.Text", "text": {}}
    features = {"image": image_feature((4, None, 1)), "label": text}
    folder = prepare(tmp_path, {"train": examples(6), "test": examples(2)}, features=features)
    assert tfds_folder.read_contents("tiny", folder)[:3] == ((4, None, 1), "uint8", None)


def test_tfds_knows_every_class_that_is_admitted():
    import tensorflow_datasets as tfds

    registered = tfds.features.FeatureConnector._registered_features
    for name in tfds_folder._KNOWN_CLASSES:
        importlib.import_module(name.rpartition(".")[0])
        assert name in registered
