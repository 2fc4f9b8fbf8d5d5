"""Threads and batches of the PyTorch side, shared by every benchmark."""

import os
from collections.abc import Iterator

import torch


def use_all_cores() -> None:
    """Gives PyTorch as many threads as this process may use cores."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def batches(data: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """Yields batches without end, shuffled once per epoch; an incomplete last batch is dropped."""
    while True:
        for indices in torch.randperm(len(data)).split(batch_size):
            if len(indices) == batch_size:
                yield data[indices]
