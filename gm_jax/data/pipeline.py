"""Batches as pure functions of (seed, step): without an iterator there is no state to save or lose.

Notation: N examples, batches of B, epoch e = 0, 1, ... Each seed defines one endless order of examples, the
concatenation of one permutation of 0..N-1 per epoch,

    order = pi_0, pi_1, pi_2, ...,    pi_e = argsort of N Philox words keyed by (seed, e)             (1)

and training batch k holds its positions kB .. (k+1)B - 1. Batches therefore cross the ends of epochs, every epoch
covers each example exactly once for any B, and nothing is dropped. Each host takes a contiguous shard of the same
global batch, so the global batches do not depend on the number of hosts. Whether a training image is mirrored depends
on its position in the order alone: it is a bit of another Philox word keyed by (seed, e).

Images stay uint8 here: a model scales them to [0, 1] or [-1, 1] itself, by `ops.levels`.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gm_jax.data import mapped_arrays
from gm_jax.errors import UserError

Split = Mapping[str, np.ndarray]  # name -> [N, ...]: the arrays of one split, equally long
NumpyBatch = dict[str, np.ndarray]  # name -> [B, ...]


@functools.lru_cache(maxsize=4)
def permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Computes the order of the examples in one epoch, pi_e of (1).

    It sorts raw Philox words instead of calling `Generator.permutation`: numpy guarantees the stream of a bit
    generator across versions, but not the stream of a Generator's methods.

    Args:
        num_examples: N.
        seed: 0 <= seed < 2**64.
        epoch: e >= 0.
    Returns:
        [N] int64, a permutation of 0..N-1; read-only, because it is cached.
    Raises:
        UserError: the seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise UserError(f"The seed is {seed}; use one from 0 to 2**64 - 1.")
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(num_examples)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


@functools.lru_cache(maxsize=4)
def mirrored(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Computes which positions of one epoch hold a mirrored image, each with probability 1/2.

    Args:
        num_examples: N.
        seed: 0 <= seed < 2**64.
        epoch: e >= 0.
    Returns:
        [N] bool, by position in the epoch; read-only, because it is cached.
    """
    # The key of pi_e, and a part of its stream that no permutation reaches.
    stream = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=[0, 0, 0, 1])
    bits = (stream.random_raw(num_examples) >> np.uint64(63)).astype(bool)
    bits.flags.writeable = False
    return bits


def train_batch(split: Split, batch_size: int, seed: int, step: int, shard: tuple[int, int] = (0, 1)) -> NumpyBatch:
    """Builds training batch `step`, or one host's part of it.

    Args:
        split: name -> [N, ...].
        batch_size: B, of the global batch.
        seed: selects the endless order.
        step: k >= 0.
        shard: (index, count): part `index` of `count` contiguous parts. Their sizes differ by one example at most
            and are equal if count divides B.
    Returns:
        name -> [B, ...], or [B / count, ...] for a shard; new arrays.
    Raises:
        UserError: B is not in 1..N, or the seed is out of range.
        ValueError: the step is negative, the shard does not exist, or the arrays differ in length.
    """
    return {name: array[0] for name, array in train_batches(split, batch_size, seed, step, 1, shard).items()}


def train_batches(
    split: Split,
    batch_size: int,
    seed: int,
    first_step: int,
    count: int,
    shard: tuple[int, int] = (0, 1),
    *,
    flip: bool = False,
) -> NumpyBatch:
    """Builds and stacks training batches `first_step` .. `first_step + count - 1`, for several steps per device call.

    Args:
        split: name -> [N, ...].
        batch_size: B, of each global batch.
        seed: selects the endless order.
        first_step: k >= 0.
        count: number of batches, at least 1.
        shard: (index, count) as in `train_batch`, applied to every batch.
        flip: whether images "x" [N, H, W, C] are mirrored left to right, each with probability 1/2.
    Returns:
        name -> [count, B, ...], or [count, B / shard count, ...] for a shard; new arrays.
    Raises:
        UserError: B is not in 1..N, or the seed is out of range.
        ValueError: as in `train_batch`, or the count is less than 1.
    """
    num_examples = _num_examples(split)
    indices = _indices(num_examples, batch_size, seed, first_step, count)
    index, parts = map(operator.index, shard)
    if not 0 <= index < parts:
        raise ValueError(f"The shard must be (index, count) with 0 <= index < count; got {shard}.")
    rows = slice(batch_size * index // parts, batch_size * (index + 1) // parts)
    indices = indices[:, rows]
    batches = {name: mapped_arrays.take(array, indices) for name, array in split.items()}
    if flip:
        x, flips = batches["x"], _cut(mirrored, num_examples, batch_size, seed, first_step, count)[:, rows]
        x[flips] = x[flips][:, :, ::-1]
    return batches


def eval_batches(split: Split, batch_size: int) -> Iterator[tuple[NumpyBatch, np.ndarray]]:
    """Iterates over every example once, in order, in batches of one shape, so that an evaluation compiles once.

    The last batch is padded with copies of the last example, which are finite under any model; the mask marks the
    rows that count.

    Args:
        split: name -> [N, ...].
        batch_size: B; it may exceed N.
    Returns:
        An iterator over (batch, mask): name -> [B, ...], and [B] bool with True for an example, False for padding.
    Raises:
        UserError: B is less than 1.
        ValueError: the arrays differ in length.
    """
    num_examples = _num_examples(split)
    if batch_size < 1:
        raise UserError(f"The batch size is {batch_size}; use at least 1.")
    return _eval_batches(split, num_examples, batch_size)


def _eval_batches(split: Split, num_examples: int, batch_size: int) -> Iterator[tuple[NumpyBatch, np.ndarray]]:
    # A separate generator, so that the checks of `eval_batches` do not wait for the first `next`.
    for start in range(0, num_examples, batch_size):
        positions = np.arange(start, start + batch_size)
        indices = np.minimum(positions, num_examples - 1)
        yield {name: mapped_arrays.take(array, indices) for name, array in split.items()}, positions < num_examples


def _indices(num_examples: int, batch_size: int, seed: int, first_step: int, count: int) -> np.ndarray:
    """Returns [count, B]: positions first_step * B .. (first_step + count) * B - 1 of the endless order."""
    # Python integers, because positions overflow an int32 step that came from a device.
    num_examples, batch_size, seed, first_step, count = map(
        operator.index, (num_examples, batch_size, seed, first_step, count)
    )
    if not 1 <= batch_size <= num_examples:
        raise UserError(
            f"The batch size is {batch_size}, but this split has {num_examples} examples: use 1 to {num_examples}."
        )
    if first_step < 0 or count < 1:
        raise ValueError(f"Expected first_step >= 0 and count >= 1; got {first_step} and {count}.")
    return _cut(permutation, num_examples, batch_size, seed, first_step, count)


def _cut(
    of_epoch: Callable[[int, int, int], np.ndarray],
    num_examples: int,
    batch_size: int,
    seed: int,
    first_step: int,
    count: int,
) -> np.ndarray:
    """Returns [count, B]: the same positions of the concatenation of what `of_epoch` computes, [N] an epoch."""
    position, stop = first_step * batch_size, (first_step + count) * batch_size
    pieces = []
    while position < stop:
        epoch, offset = divmod(position, num_examples)
        piece = of_epoch(num_examples, seed, epoch)[offset : offset + stop - position]
        pieces.append(piece)
        position += len(piece)
    return np.concatenate(pieces).reshape(count, batch_size)


def _num_examples(split: Split) -> int:
    lengths = {name: len(array) for name, array in split.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"The arrays of a split must be equally long; got {lengths}.")
    return next(iter(lengths.values()))
