"""Data: named sources of numpy arrays, and batches that are pure functions of (seed, step).

sources.py         `load(name, data_dir)` returns a `Source`: its `Spec` and its splits, in memory or mapped
pipeline.py        cuts splits into batches: `train_batch`, `train_batches`, `eval_batches`
binary_digits.py   black and white digits; `small_world_probabilities()` is the exact distribution of `digits4x4`
toy.py             2-D toy densities; `toy_log_density(name)` is the exact log-density of a `toy:*` source
waveform.py        toy waveforms; `waveform_log_prob` is the exact log-probability of a `wave:*` source
captions.py        a small language for pictures of digits: words, tokens, and what a caption says
scenes.py          captioned pictures of coloured digits: `captions`, `captions:mnist`
image_folder.py    PNG and JPEG images in a folder of your own: `folder:PATH`
arrays.py          arrays of your own, in Python or in an .npz: `npz:PATH`
image_files.py     decodes images of any origin; resizes their centre
splits.py          cuts the splits that a data set does not ship
memory.py          arrays that fit into memory, or an error
mapped_arrays.py   arrays that stay on disk
split_writer.py    sorts decoded images into splits, in memory or on disk
prefetch.py        makes batches in the background, some calls ahead
tfds_sources.py    prepared image sets of TensorFlow Datasets, read without TensorFlow
known_sets.py      shapes of well-known image sets, without their data
tfds_folder.py     what a prepared set holds, by its JSON files; nothing that they name is imported
tfds_records.py    decodes the records of a prepared set
names.py           the error for an unknown name
array_cache.py     decoded arrays, kept on disk between runs

This room imports neither JAX nor a model: arrays are numpy, and images stay uint8 until a model transforms them.
"""

from gm_jax.data import (
    array_cache,
    arrays,
    binary_digits,
    captions,
    image_files,
    image_folder,
    known_sets,
    mapped_arrays,
    names,
    pipeline,
    prefetch,
    scenes,
    sources,
    split_writer,
    splits,
    tfds_sources,
    toy,
    waveform,
)

__all__ = [
    "array_cache",
    "arrays",
    "binary_digits",
    "captions",
    "image_files",
    "image_folder",
    "known_sets",
    "mapped_arrays",
    "names",
    "pipeline",
    "prefetch",
    "scenes",
    "sources",
    "split_writer",
    "splits",
    "tfds_sources",
    "toy",
    "waveform",
]
