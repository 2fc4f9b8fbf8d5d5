"""Orbax and TensorStore as `checkpoint` uses them: saves survive a power cut, and failures fit on one line.

Orbax syncs none of the files that it writes itself, and no folder. Here the files of a checkpoint are synced, then the
folder gets its final name, then the folder above is synced, and only then older checkpoints are deleted.
"""

import asyncio
import logging
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from orbax.checkpoint import checkpoint_managers as policies
from orbax.checkpoint.path import atomicity

from gm_jax.files import make_folder, sync_folder, sync_tree

_BEING_WRITTEN = ".orbax-checkpoint-tmp"  # how Orbax's names of such folders end
# At the first array that fails Orbax closes its event loop. Other arrays then find it closed, before they are written
# or between two of their fragments.
_NOT_WRITTEN = r"coroutine '_?(async_)?serialize.*' was never awaited"


def open_manager(
    directory: pathlib.Path, keep_latest: int, metric_of: Callable[[int], float | None]
) -> ocp.CheckpointManager:
    """Opens the manager that saves and deletes the checkpoints of a folder.

    Args:
        directory: the folder; it is made if it does not exist.
        keep_latest: how many of the latest to keep, in addition to the one with the largest metric.
        metric_of: step -> metric.

    Raises:
        OSError: the folder cannot be made.
    """
    _silence()
    make_folder(directory)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=LatestAndBest(keep_latest, metric_of),
        cleanup_tmp_directories=True,
        lightweight_initialize=True,  # or damaged metadata of an old checkpoint would stop the run
        temporary_path_class=_SyncedPath,
        # Otherwise threads wait five minutes for a folder that another thread has failed to make.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )
    return ocp.CheckpointManager(directory, options=options)


class _SyncedPath(atomicity.AtomicRenameTemporaryPath):
    """A checkpoint that is on the disk before it gets its final name."""

    async def finalize(self) -> None:
        """Syncs the files, then renames the folder and syncs its name; nobody reads the notes that Orbax adds last."""
        parent = pathlib.Path(self.get_final()).parent
        if parent.name.endswith(_BEING_WRITTEN):  # a part of a checkpoint
            await super().finalize()
            return
        await asyncio.to_thread(sync_tree, pathlib.Path(self.get()))
        await super().finalize()
        await asyncio.to_thread(sync_folder, parent)


def _silence() -> None:
    """Keeps a failed save, which `Checkpointer` reports once, from printing a traceback for each array and thread."""
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).addFilter(_is_to_be_shown)
    warnings.filterwarnings("ignore", _NOT_WRITTEN, RuntimeWarning)
    show = sys.unraisablehook
    if getattr(show, "_without_closed_loops", False):
        return

    def show_others(raised: "sys.UnraisableHookArgs", /) -> None:
        is_of_closed_loop = re.fullmatch(f"Event loop is closed|{_NOT_WRITTEN}", str(raised.exc_value))
        if not (raised.exc_type in (RuntimeError, RuntimeWarning) and is_of_closed_loop):
            show(raised)

    setattr(show_others, "_without_closed_loops", True)  # noqa: B010
    sys.unraisablehook = show_others


def _is_to_be_shown(record: logging.LogRecord) -> bool:
    # asyncio logs the errors that nobody has asked a task for; those of Orbax name its code or its files.
    is_of_orbax = "orbax" in (record.getMessage() if record.name == "asyncio" else record.pathname)
    return not is_of_orbax


class LatestAndBest(policies.PreservationPolicy):
    """Keeps the latest few and the one with the largest metric; Orbax deletes the others after a complete save."""

    def __init__(self, latest: int, metric_of: Callable[[int], float | None]):
        self._latest = latest
        self._metric_of = metric_of

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
    ) -> list[bool]:
        """Returns, for each checkpoint, whether it stays."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        keep = set(sorted(steps)[-self._latest :])
        metrics = [(metric, step) for step in steps if (metric := self._metric_of(step)) is not None]
        keep.update(step for _, step in sorted(metrics)[-1:])
        return [step in keep for step in steps]


def read_arrays(directory: pathlib.Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Reads Orbax's arrays, zarr in one OCDBT database, with TensorStore, which Orbax itself uses.

    Args:
        directory: of the arrays.
        shapes: path -> shape of each.

    Orbax's own restore has two faults here. It waits for all processes, but process 0 alone tries candidates. At the
    first damaged array it closes its event loop, and every other array prints a traceback that no `except` catches.
    """
    database = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{directory}/"}}
    opened = {
        path: ts.open({"driver": "zarr", "kvstore": {**database, "path": f"{path}/"}}, open=True, read=True)
        for path in shapes
    }
    reading = {}
    for path, array in opened.items():
        # Before it is read: the files may describe an array that no memory holds.
        if list(array.result().shape) != list(shapes[path]):
            raise ValueError(f"{path} has the shape {list(array.result().shape)}, not {list(shapes[path])}")
        reading[path] = array.result().read()
    return {path: array.result() for path, array in reading.items()}


def one_line(error: BaseException) -> str:
    """Returns what happened, and why, on one line of at most about 120 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.split(" [tensorstore_spec")[0]  # it is a page long
    return text if len(text) <= 120 else f"{text[:40]} ... {text[-75:]}"
