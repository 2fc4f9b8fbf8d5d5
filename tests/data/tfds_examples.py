"""Prepared sets of TensorFlow Datasets, written file by file without TensorFlow."""

import io
import json

import numpy as np
import PIL.Image
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2


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


def png(image, **options):
    """Returns the bytes of an image, [H, W, C] uint8 or PIL's own, as PNG unless `format` says otherwise."""
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def example(image, label=None):
    """Returns a record: the bytes of an image, or a list of them, and a label, or a list of them."""
    message = example_pb2.Example()
    if image is not None:
        message.features.feature["image"].bytes_list.value.extend([image] if isinstance(image, bytes) else image)
    if label is not None:
        message.features.feature["label"].int64_list.value.extend(np.atleast_1d(label).tolist())
    return message.SerializeToString()


def write_records(file, records):
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def prepare(data_dir, splits, name="tiny", version="1.0.0", config=None, features=None, file_format="array_record"):
    """Writes what `download_and_prepare` writes, without TensorFlow; splits: name -> (images, labels or None)."""
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
        each = [None] * len(images) if labels is None else labels
        write_records(file, [example(png(image), label) for image, label in zip(images, each, strict=True)])
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
