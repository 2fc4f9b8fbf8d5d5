"""Training by several processes: how they find each other, what they compare before the first step, how they leave.

    with joined(args.cluster) as member:                   # a single process passes through all of this
        check_same(facts, module, data=fingerprint)        # or all leave with an error that names what differs
        share(folder)                                      # <run>/processes
        member.watch(folder)                               # heartbeats, and a limit on each phase
        member.enter("training", step)

The folder must lie on a file system that all processes share. Processes that can agree leave together: at the end,
after a signal and after an error that all of them see. A process that meets an exception alone reports it in the folder
and leaves at once; the others read the report, each prints it and leaves too.

jax's own heartbeat stays as a backup for what happens before `watch`. jax's preemption service is turned off: it takes
SIGTERM for itself, but `gm_jax.signals` also takes Ctrl-C and lets a second signal end the process.
The processes agree on the last step by votes instead (`loop.counting_votes`), which cost no extra call.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import jax

from gm_jax.cluster import rendezvous
from gm_jax.cluster.config import ClusterConfig
from gm_jax.cluster.watchdog import FAILURE, Watchdog
from gm_jax.errors import SMALLER_TRAINING, UserError, report, too_large
from gm_jax.training import multihost

AUTO = "auto"

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_SHOWN = 3
_BACKUP = 6  # jax's heartbeat timeout, in units of ours: the watchdog must act first, and jax begins to count earlier
_PATIENCE = 3.0  # seconds that process 0 outlives the others if no heartbeats show when they have left


class Member:
    """This process among the others. If it is the only one, the methods do nothing."""

    def __init__(self, config: ClusterConfig):
        self._config = config
        self._watchdog: Watchdog | None = None
        self._folder: Path | None = None

    def watch(self, folder: Path) -> None:
        """Begins to give heartbeats in a folder for which `share` was called."""
        if jax.process_count() == 1:
            return
        self._folder = folder
        self._watchdog = Watchdog(
            folder,
            jax.process_index(),
            heartbeat_timeout=self._config.heartbeat_timeout,
            stall_timeout=self._config.stall_timeout,
        )
        self._watchdog.start()
        self._watchdog.catch_abort()

    def enter(self, phase: str, step: int, *, limit: float | None = None) -> None:
        """Begins a phase, for the others to see; `limit` is in seconds and by default follows from earlier phases."""
        if self._watchdog is not None:
            self._watchdog.enter(phase, step, limit=limit)

    def leave_together(self, code: int) -> NoReturn:
        """Waits at a barrier for all others, then ends this process, process 0 last.

        `jax.distributed.shutdown` does not do: behind its barrier process 0 stops the coordination service, and jax
        aborts every process that is still connected to it.
        """
        self.enter("leaving", 0, limit=self._config.shutdown_timeout)
        try:
            multihost.all_gather_json(None)
        except jax.errors.JaxRuntimeError as error:
            self.abandon(error)
        if self._watchdog is not None:
            self._watchdog.leave()
        elif multihost.is_primary():
            time.sleep(_PATIENCE)
        if self._folder is not None and multihost.is_primary():
            shutil.rmtree(self._folder, ignore_errors=True)
        _exit(code)

    def abandon(self, error: BaseException) -> NoReturn:
        """Reports the error and ends this process without waiting for the others, who may be anywhere."""
        if self._watchdog is not None and is_failed_collective(error):
            culprit = self._watchdog.find_culprit()
            if culprit is not None:
                self._watchdog.give_up(culprit)
        code = report(too_large(error, SMALLER_TRAINING) or error)  # only training has several processes
        if code is None:
            traceback.print_exception(error)
        if self._watchdog is not None:
            self._watchdog.fail(f"{type(error).__name__}: {' '.join(str(error).split())}")
            self._watchdog.leave()
        _exit(1 if code is None else code)


@contextlib.contextmanager
def joined(config: ClusterConfig) -> Iterator[Member]:
    """Makes this process one of several for the length of a block; must come before anything that touches a device.

    Raises:
        UserError: the settings do not fit together, or the others were not found.
    """
    _check(config)
    member = Member(config)
    if config.coordinator is None:
        yield member
        return
    _initialize(config.coordinator, config)
    logging.getLogger("absl").addFilter(is_news)
    try:
        yield member
    except multihost.CollectiveUserError as error:
        member.leave_together(report(error))
    except SystemExit as end:
        member.leave_together(_exit_code(end))
    except BaseException as error:
        member.abandon(error)
    else:
        member.leave_together(0)


def check_same(facts: Mapping[str, Any], module: str, *, data: str) -> None:
    """Compares what all processes must have in common: configuration, code and data.

    Args:
        facts: the configuration's fields that change the result, by their full names.
        module: the experiment's module.
        data: the fingerprint of the data.

    Raises:
        CollectiveUserError: on all processes; names the processes that differ from process 0, and in what.
    """
    own = {f"config {name}": value for name, value in facts.items()}
    own |= {f"code {name}": value for name, value in code_versions(module).items()}
    own["data"] = data
    everyone = multihost.all_gather_json(own)
    lines = []
    for process, theirs in enumerate(everyone):
        names = [name for name in {**everyone[0], **theirs} if everyone[0].get(name) != theirs.get(name)]
        if names:
            shown = [f"{name} is {_short(theirs.get(name))}, not {_short(everyone[0].get(name))}" for name in names]
            rest = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"process {process} differs from process 0: {'; '.join(shown[:_SHOWN])}{rest}")
    if lines:
        more = f" (and {len(lines) - 1} more processes differ)" if len(lines) > 1 else ""
        raise multihost.CollectiveUserError(
            f"{lines[0]}{more}\ngive all processes the same command, the same code and the same data."
        )


def share(folder: Path) -> None:
    """Makes the folder for heartbeats, and checks that all processes see the same one.

    Raises:
        CollectiveUserError: some process does not see it.
    """
    if jax.process_count() == 1:
        return
    token = multihost.broadcast(uuid.uuid4().hex)

    def make() -> None:
        if multihost.is_primary():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / FAILURE).touch()  # now: some network file systems show a new file late, but not a new content
            (folder / "run").write_text(token)

    def see() -> None:
        for _ in range(60):
            with contextlib.suppress(OSError):
                if (folder / "run").read_text() == token:
                    return
            time.sleep(0.5)
        raise UserError(
            f"{folder.parent} is not the folder that process 0 has made:\n"
            "choose a --workdir on a file system that all processes share."
        )

    multihost.all_or_none(make)
    multihost.all_or_none(see)


def is_failed_collective(error: BaseException | None) -> bool:
    """Returns whether an exception comes from jax, directly or as the cause of another: a peer may be the culprit."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error is not None


def is_news(record: logging.LogRecord) -> bool:
    """Returns whether a log record is worth its page: Orbax logs one for each save that a lost peer has left."""
    return not (record.exc_info and is_failed_collective(record.exc_info[1]))


def code_versions(module: str) -> dict[str, str]:
    """Returns the versions of all that computes: packages, and hashes of this package's and the experiment's source."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    # The experiment, which is __main__, and what it has imported from its own package.
    near = {name: one for name, one in sys.modules.items() if name.partition(".")[0] == module.partition(".")[0]}
    files = {getattr(one, "__file__", None) for one in [sys.modules["__main__"], *near.values()]}
    # A notebook has no file, and a program from standard input has one that does not exist.
    contents = sorted(Path(file).read_bytes() for file in files if file and Path(file).is_file())
    experiment = hashlib.sha256(b"\0".join(contents))
    return {
        "gm_jax": digest.hexdigest(),
        module: experiment.hexdigest(),
        "python": sys.version.split()[0],
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def _check(config: ClusterConfig) -> None:
    settings = (config.num_processes, config.process_id)
    if config.coordinator is None:
        if settings != (None, None):
            raise UserError("--cluster.coordinator is missing: give HOST:PORT of process 0, or auto.")
        return
    if config.coordinator == AUTO:
        return
    host, _, port = config.coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"--cluster.coordinator is {config.coordinator!r}: give HOST:PORT of process 0, or auto.")
    if config.num_processes is None or config.process_id is None:
        raise UserError(
            f"--cluster.coordinator {config.coordinator} is not enough:\n"
            "give --cluster.num-processes and --cluster.process-id too, or --cluster.coordinator auto."
        )
    if config.process_id >= config.num_processes:
        raise UserError(
            f"--cluster.process-id is {config.process_id}: give 0 to {config.num_processes - 1}, one to each process."
        )


def _initialize(coordinator: str, config: ClusterConfig) -> None:
    jax.config.update("jax_enable_preemption_service", False)
    given = {}
    if coordinator != AUTO and config.process_id is not None and config.num_processes is not None:
        rendezvous.meet(coordinator, config.process_id, config.num_processes)
        given = {
            "coordinator_address": coordinator,
            "num_processes": config.num_processes,
            "process_id": config.process_id,
        }
        if rendezvous.is_local(coordinator):
            given["coordinator_bind_address"] = coordinator  # jax would listen on every interface
    try:
        jax.distributed.initialize(
            **given,
            heartbeat_timeout_seconds=_BACKUP * config.heartbeat_timeout,
            shutdown_timeout_seconds=config.shutdown_timeout,
        )
    except (ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the processes did not find each other at {coordinator}: {first[:200]}\n"
            "check the address, and that all processes were started."
        ) from error
    _leave_if_uneven()


def _leave_if_uneven() -> None:
    """Ends all processes if they have different numbers of devices, before a collective fails in a traceback."""
    counts = [0] * jax.process_count()
    for device in jax.devices():
        counts[device.process_index] += 1
    if len(set(counts)) == 1:
        return
    other = next(process for process, count in enumerate(counts) if count != counts[0])
    code = report(
        UserError(
            f"process {other} has {counts[other]} devices, process 0 has {counts[0]}:\n"
            "give all processes the same number (XLA_FLAGS, CUDA_VISIBLE_DEVICES, the cluster's settings)."
        )
    )
    if multihost.is_primary():
        time.sleep(_PATIENCE)
    _exit(code)


def _exit_code(end: SystemExit) -> int:
    """Returns the code that Python would exit with: 0 for None, and 1 for a message, which it prints."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a normal exit waits in jax for the others


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a hash
