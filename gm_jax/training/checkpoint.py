"""Verified checkpoints: Orbax writes them, and a SHA-256 manifest in each lists what was written.

    directory/
      300/                          one folder per step; Orbax renames it into place when it is complete
        state/                      the leaves of the state, under their paths: ".params['vae']['Dense_0']['kernel']"
        manifest/                   JSON: step, metric, fingerprint; shape, dtype and SHA-256 of every leaf
      400.orbax-checkpoint-tmp/     a save in progress or cut off; never read, removed by the next save
      damaged-200/                  a checkpoint that failed verification, moved aside; never read

Orbax alone restores flipped bits silently. Here a restore compares every leaf with the manifest, and the manifest with
its own hash, on the host and before anything reaches a device: it returns what was saved, bit for bit.

Only the manifest holds the metric, so that a verified number decides which checkpoint is the best. Nothing is
unpickled: the files hold numbers, and the caller gives the tree.

Several processes save and restore together, in one folder that all see. Process 0 writes the manifest, chooses which
checkpoint to restore and moves damaged ones aside; each process verifies what it reads.
"""

import contextlib
import itertools
import logging
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gm_jax.errors import UserError
from gm_jax.files import read_json
from gm_jax.training import manifest, multihost, orbax_files
from gm_jax.training.manifest import DamageError
from gm_jax.types import PyTree

_STATE = "state"
_MANIFEST = "manifest"
_SAME = "use the same {} as before, or another folder"
_LOG = logging.getLogger("gm_jax")


class Restored(NamedTuple):
    """The content of a checkpoint.

    Attributes:
        state: structured as `like`; arrays with its shardings, each in its own buffer.
        step: the step at which it was saved.
        metric: the argument of `save`.
    """

    state: PyTree
    step: int
    metric: float | None


class Checkpointer:
    """Saves and restores the checkpoints of one run: the latest few and the best.

    It is a context manager; leaving it waits for the save in progress. The first save creates the folder.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        keep_latest: int = 3,
        fingerprint: Mapping[str, str] | None = None,
        run: str | None = None,
        read_only: bool = False,
        leave_out: str | None = None,
    ):
        """Opens a folder, which need not exist.

        Args:
            directory: the folder of the checkpoints.
            keep_latest: how many of the latest to keep, in addition to the one with the largest metric.
            fingerprint: what the state depends on (e.g. the fields of the configuration that change the result). It is
                saved with the state, and a checkpoint with a different one is refused. None skips this check.
            run: the identity of the run, saved and compared likewise; empty for a run without one.
            read_only: for evaluation: `save` is refused, and the folder does not change.
            leave_out: a part of the state that is not restored, e.g. "opt_state", because only training needs it.
        """
        if keep_latest < 1:
            raise ValueError(f"keep_latest must be at least 1, got {keep_latest}")
        self._directory = pathlib.Path(directory).absolute()  # Orbax fails late on a relative path
        self._keep_latest = keep_latest
        self._fingerprint = None if fingerprint is None else dict(fingerprint)
        self._run = run
        self._read_only, self._leave_out = read_only, leave_out
        self._manager: ocp.CheckpointManager | None = None
        self._pending: int | None = None
        self._metrics: dict[int, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # If another process is gone, the save in progress would wait for it forever.
        if kind is None or jax.process_count() == 1 or not issubclass(kind, jax.errors.JaxRuntimeError):
            self.close()

    def save(self, step: int, state: PyTree, *, metric: float | None = None) -> None:
        """Saves the state in the background, after the previous save; then deletes checkpoints that are not kept.

        The state is copied before this returns, so that it may be donated at once. A step that is saved already is not
        saved again.

        Args:
            step: larger than every step saved.
            state: pytree of `jax.Array`.
            metric: validation log-probability; larger is better. Without one, or if it is not finite, the checkpoint is
                kept among the latest and is never the best.

        Raises:
            UserError: this save could not be started, or the previous one could not be written.
            JaxRuntimeError: another process is gone.
            ValueError: a later step is saved already.
            TypeError: a leaf is not a `jax.Array`.
        """
        if self._read_only:
            raise ValueError("this Checkpointer is read-only")
        self.wait()
        latest = max(self.steps(), default=-1)
        if step == latest:
            return
        if step < latest:
            raise ValueError(f"step {step} comes after step {latest} was saved")
        leaves = manifest.leaves_by_path(state)
        for path, leaf in leaves.items():
            if not isinstance(leaf, jax.Array):
                raise TypeError(f"state{path} is a {type(leaf).__name__}, not a jax.Array")
        metric = float(metric) if metric is not None and math.isfinite(metric) else None
        document = {}  # Orbax writes that of process 0
        if multihost.is_primary():
            document = manifest.seal(step, metric, self._fingerprint, jax.device_get(leaves), run=self._run or "")
        # Two items of one checkpoint share one folder and one rename, so that neither exists without the other.
        items = ocp.args.Composite(**{_STATE: ocp.args.PyTreeSave(leaves), _MANIFEST: ocp.args.JsonSave(document)})
        try:
            manager = self._open_manager()
            if metric is not None:
                self._metrics[step] = metric
            manager.save(step, args=items, force=True)
        except (OSError, MemoryError, RuntimeError) as error:  # RuntimeError: there is no memory for another thread
            _raise_if_peer_is_lost(error)
            raise self._not_saved(step, error) from error
        self._pending = step

    def wait(self) -> None:
        """Blocks until the save in progress, if any, is complete.

        Raises:
            UserError: it could not be written.
            JaxRuntimeError: another process is gone.
        """
        if self._manager is None or self._pending is None:
            return
        try:
            self._manager.wait_until_finished()
            if multihost.is_primary() and not (self._directory / str(self._pending)).is_dir():
                raise OSError("its folder is missing")
        # Orbax and TensorStore raise many types for a full disk. The arrays were copied before `save` returned, so that
        # a failure here is a failure to write.
        except Exception as error:
            _raise_if_peer_is_lost(error)
            raise self._not_saved(self._pending, error) from error
        self._pending = None

    def close(self) -> None:
        """Waits for the save in progress, then ends Orbax's threads; a later save starts them again."""
        try:
            self.wait()
        finally:
            self._close_manager()

    def steps(self) -> list[int]:
        """Returns the steps whose checkpoints are complete, ascending, without a save in progress."""
        if not self._directory.is_dir():
            return []
        # Digits of other alphabets are decimal too.
        names = [path.name for path in self._directory.iterdir() if path.name.isdecimal() and path.is_dir()]
        return sorted(int(name) for name in names if name == str(int(name)))

    def best_step(self) -> int | None:
        """Returns the step with the largest metric (the latest of equals); None if no checkpoint has one."""
        metrics, _ = self._read_metrics()
        return max(metrics, key=lambda step: (metrics[step], step), default=None)

    def restore_latest(self, like: PyTree) -> Restored | None:
        """Restores the newest good checkpoint.

        A damaged one is skipped with a warning. Unless read-only, it is moved aside to `damaged-<step>` after an older
        one has been verified.

        Args:
            like: the expected state, of arrays or `jax.ShapeDtypeStruct`. Shapes and dtypes must agree; the result gets
                its shardings (the default device for a leaf without one).

        Returns:
            The checkpoint; None if there never was one.

        Raises:
            UserError: there are checkpoints and all are damaged; or the newest good one belongs to another model or
                fingerprint (then nothing is moved).
        """
        return self._restore_chosen(lambda: self._restore_first_good(self._newest_first(), like), like)

    def restore_best(self, like: PyTree) -> Restored | None:
        """Restores the good checkpoint with the largest metric, or the newest if none has a metric.

        In all else it behaves as `restore_latest`.
        """
        return self._restore_chosen(lambda: self._restore_first_good(self._best_first(), like), like)

    def restore_step(self, like: PyTree, step: int) -> Restored:
        """Restores the checkpoint of one step, without a substitute.

        Raises:
            UserError: it does not exist, is damaged, or belongs to another model or fingerprint.
        """
        self.wait()
        if step not in self.steps():
            raise UserError(f"no checkpoint of step {step} in {self._directory}\nchoose one of {self.steps()}")
        try:
            return self._restore(step, like)
        except DamageError as damage:
            raise UserError(f"checkpoint {step} in {self._directory} is damaged: {damage}") from damage

    def _newest_first(self) -> list[int]:
        self._read_metrics()  # refuses a checkpoint of another run at once, also if it is not the newest
        return self.steps()[::-1]

    def _best_first(self) -> list[int]:
        metrics, unreadable = self._read_metrics()
        by_metric = sorted(metrics, key=lambda step: (metrics[step], step), reverse=True)
        others = [step for step in reversed(self.steps()) if step not in metrics and step not in unreadable]
        # A checkpoint with an unreadable metric may be the best: trying it first produces the warning.
        return [*reversed(unreadable), *by_metric, *others]

    def _restore_chosen(self, choose: Callable[[], Restored | None], like: PyTree) -> Restored | None:
        """Restores the checkpoint that process 0 chooses, because others may see other damage."""
        self.wait()
        restored = multihost.all_or_none(choose if multihost.is_primary() else lambda: None)
        step = multihost.broadcast(restored and restored.step)
        return self.restore_step(like, step) if restored is None and step is not None else restored

    def _restore_first_good(self, candidates: Iterable[int], like: PyTree) -> Restored | None:
        damaged: dict[int, DamageError] = {}
        for step in candidates:
            try:
                restored = self._restore(step, like)
            except DamageError as damage:
                damaged[step] = damage
                continue
            # Only now is it certain that those are damaged, and not the disk or memory of this machine.
            for bad, damage in damaged.items():
                self._report(bad, damage, used=step)
            return restored
        moved = sorted(path.name for path in self._directory.glob("damaged-*"))
        if not damaged and not moved:
            return None
        reasons = [f"step {step}: {damage}" for step, damage in damaged.items()]
        raise UserError(
            f"no good checkpoint in {self._directory}, only {len(damaged) + len(moved)} damaged\n"
            f"{[*reasons, *moved][0]}\n"
            "put back a copy of the folder, or move it away to start again from step 0"
        )

    def _report(self, step: int, damage: DamageError, *, used: int) -> None:
        message = f"checkpoint {step} in {self._directory} is damaged ({damage}); using checkpoint {used} instead"
        if not self._read_only:
            self._close_manager()  # Orbax caches the list of steps
            names = itertools.chain([f"damaged-{step}"], (f"damaged-{step}-{n}" for n in itertools.count(2)))
            aside = next(path for name in names if not (path := self._directory / name).exists())
            (self._directory / str(step)).rename(aside)
            message += f"; the damaged one is now {aside.name}"
        _LOG.warning(message)

    def _restore(self, step: int, like: PyTree) -> Restored:
        saved = manifest.without(self._read_manifest(step), self._leave_out)
        self._refuse(step, "run", _SAME.format("settings"), manifest.fingerprint_differences(saved, self._fingerprint))
        self._refuse(step, "model", _SAME.format("model"), manifest.model_differences(saved, like))
        leaves = self._read_leaves(step, saved)
        placed = [_place(leaves[path], leaf) for path, leaf in manifest.leaves_by_path(like).items()]
        return Restored(jax.tree.unflatten(jax.tree.structure(like), placed), step, saved["metric"])

    def _refuse(self, step: int, what: str, advice: str, differences: list[str]) -> None:
        if differences:
            raise UserError(
                f"checkpoint {step} in {self._directory} belongs to another {what}:\n"
                f"{manifest.first_of(differences)}\n"
                f"{advice}"
            )

    def _read_leaves(self, step: int, saved: Mapping[str, Any]) -> dict[str, np.ndarray]:
        with _as_damage(_STATE):
            shapes = {path: leaf["shape"] for path, leaf in saved["leaves"].items()}
            leaves = orbax_files.read_arrays(self._directory / str(step) / _STATE, shapes)
        manifest.check_leaves(saved, leaves)
        return leaves

    def _read_manifest(self, step: int) -> dict[str, Any]:
        # Not by Orbax, which waits for all processes when it reads.
        with _as_damage(_MANIFEST):
            document = read_json(self._directory / str(step) / _MANIFEST / "metadata")
        saved = manifest.unseal(document)
        if saved["step"] != step:
            raise DamageError(f"it holds step {saved['step']}")
        self._refuse(step, "run", "move it away, then repeat the command", manifest.run_differences(saved, self._run))
        return saved

    def _read_metrics(self) -> tuple[dict[int, float], list[int]]:
        """Returns the metrics of the steps that have one, and the steps with damaged manifests."""
        metrics, unreadable = {}, []
        for step in self.steps():
            try:
                metric = self._read_manifest(step)["metric"]
            except DamageError:
                unreadable.append(step)
                continue
            if metric is not None:
                metrics[step] = metric
        return metrics, unreadable

    def _open_manager(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._metrics, _ = self._read_metrics()
            self._manager = orbax_files.open_manager(self._directory, self._keep_latest, self._metrics.get)
        return self._manager

    def _close_manager(self) -> None:
        manager, self._manager, self._pending = self._manager, None, None
        if manager is not None:
            manager.close()

    def _not_saved(self, step: int, error: Exception) -> UserError:
        """Makes the error of a failed save and closes the manager, whose list of steps is no longer right."""
        with contextlib.suppress(Exception):  # the same failure again
            self._close_manager()
        return UserError(
            f"checkpoint {step} could not be written to {self._directory}: {orbax_files.one_line(error)}\n"
            "make room, or repair the folder; then the same command resumes from the previous checkpoint"
        )


def _raise_if_peer_is_lost(error: BaseException) -> None:
    """Raises the error of jax behind an error, if there are other processes: it is no fault of the disk."""
    cause: BaseException | None = error
    while jax.process_count() > 1 and cause is not None:
        if isinstance(cause, jax.errors.JaxRuntimeError):
            raise cause
        cause = cause.__cause__ or cause.__context__


@contextlib.contextmanager
def _as_damage(item: str) -> Iterator[None]:
    """Turns any exception while an item is read into `DamageError`.

    A flipped bit in one of Orbax's own files can raise any exception, so that it looks like a disk that fails for a
    moment. Hence nothing is moved aside before another checkpoint has been read.
    """
    try:
        yield
    except Exception as error:
        raise DamageError(f"{item}: {orbax_files.one_line(error)}") from error


def _place(array: np.ndarray, like: Any) -> jax.Array:
    """Places an array on the devices of `like`, one copy per replica, because `device_put` may share a buffer."""
    sharding = getattr(like, "sharding", None) or jnp.zeros(()).sharding
    parts = [
        jax.device_put(np.array(array[index]), device)
        for device, index in sharding.addressable_devices_indices_map(array.shape).items()
    ]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, parts)
