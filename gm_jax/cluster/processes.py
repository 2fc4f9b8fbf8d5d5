"""Training by several processes: how they find each other, what they compare before the first step, how they part.

    with joined(args.cluster) as member:                 # alone, all of this does nothing; else the program ends here
        check_same(config, module, data=fingerprint)     # or all leave with an error that names the odd one
        share(folder)
        member.watch(folder)                             # signs of life, and a watch over each phase
        member.enter("training", step)

The folder must lie on a file system that all processes share. Who can agree leaves in order: at the end, after a signal
and after a mistake that all of them see. Whoever meets an exception alone says so in its sign of life and leaves at
once, since the others would not come to meet it; they fail in the next collective, or jax gives the lost one up after
`heartbeat_timeout` seconds, and each says in one line who it was.

jax's own service for preemptions is turned off. It takes SIGTERM for itself, where the handlers of `loop.stop_signals`
also take Ctrl-C and let a second signal end the process; the processes agree on the step by votes instead
(`loop.counting_votes`), which cost no call and no waiting.
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
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from gm_jax.cluster import detached_output, watchdog
from gm_jax.cluster.config import ClusterConfig
from gm_jax.errors import UserError
from gm_jax.runner import cli
from gm_jax.runner import config as config_lib
from gm_jax.runner.folder import Folder
from gm_jax.training import multihost

AUTO = "auto"

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_SHOWN = 3
_LEAVING = "leaving"  # a phase, whose limit is the shutdown timeout
_PATIENCE = 3.0  # seconds that process 0 stays behind for the others, who are on their way out
_SEARCH = 10.0  # seconds to look for whoever made a collective fail


class Member:
    """This process among the others; alone, it does nothing."""

    def __init__(self, config: ClusterConfig):
        self._config = config
        self._watchdog: watchdog.Watchdog | None = None
        self._folder: Path | None = None

    def watch(self, folder: Folder) -> None:
        """Begin to give signs of life in a folder, where `share` was called.

        From here on what C++ writes to standard error passes through a process that outlives this one.
        """
        if jax.process_count() == 1:
            return
        self._folder = folder.processes
        self._watchdog = watchdog.Watchdog(
            self._folder,
            jax.process_index(),
            floor=self._config.stall_timeout,
            limits={_LEAVING: self._config.shutdown_timeout},
        )
        self._watchdog.start()
        watchdog.filter_standard_error(self._folder, jax.process_index())
        sys.stderr = detached_output.Lasting(sys.stderr)

    def enter(self, phase: str, step: int) -> None:
        """Say what this process is doing from now on."""
        if self._watchdog is not None:
            self._watchdog.enter(phase, step)

    def part(self, code: int) -> None:
        """Leave when all others are here too, process 0 last; never returns.

        Not by `jax.distributed.shutdown`: behind its barrier process 0 takes the service away, and jax kills whoever
        has not yet let go of it.
        """
        self.enter(_LEAVING, 0)
        try:
            multihost.all_gather_json(None)
        except jax.errors.JaxRuntimeError as error:
            self.abandon(error)
        if multihost.is_primary():
            if self._watchdog is None:
                time.sleep(_PATIENCE)
            else:
                self._watchdog.wait_for_others(_PATIENCE)
        self._leave(watchdog.DONE, code)

    def abandon(self, error: BaseException) -> None:
        """Leave the others, who may be anywhere, without waiting for anything; never returns."""
        if isinstance(error, jax.errors.JaxRuntimeError) and self._watchdog is not None:
            line = self._watchdog.find_lost(seconds=_SEARCH)
            if line is not None:
                print(f"error: {line}; {watchdog.AGAIN}", file=sys.stderr)
                self._leave(watchdog.blaming(line), 1)
        code = cli.report(error)
        if code is None:
            traceback.print_exception(error)
        self._leave(f"{type(error).__name__}: {' '.join(str(error).split())}", 1 if code is None else code)

    def _leave(self, why: str, code: int) -> None:
        if self._watchdog is not None:
            self._watchdog.end(why)
            if why == watchdog.DONE and multihost.is_primary():
                shutil.rmtree(self._folder, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at a normal exit jax waits for the others


@contextlib.contextmanager
def joined(config: ClusterConfig) -> Iterator[Member]:
    """Be one of the processes for the length of a block; it comes before anything that touches a device.

    Raises:
        UserError: the settings do not fit together, or the others were not found.
    """
    _check(config)
    member = Member(config)
    if config.coordinator is None:
        yield member
        return
    _initialize(config)
    logging.getLogger("absl").addFilter(_is_news)
    try:
        yield member
    except multihost.CollectiveUserError as error:
        member.part(cli.report(error))
    except SystemExit as end:
        member.part(end.code)
    except BaseException as error:
        member.abandon(error)
    else:
        member.part(0)


def check_same(config: Any, module: str, *, data: str) -> None:
    """Compare what all processes must have alike: configuration, code, data.

    Raises:
        CollectiveUserError: on all of them, naming the processes that differ from process 0, and in what.
    """
    mine = {f"config {name}": value for name, value in config_lib.facts(config).items()}
    mine |= {f"code {name}": value for name, value in _code(module).items()}
    mine["data"] = data
    everyone = multihost.all_gather_json(mine)
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


def share(folder: Folder) -> None:
    """Make the place for signs of life, and see that all processes see it.

    Raises:
        CollectiveUserError: some process does not.
    """
    if jax.process_count() == 1:
        return
    token = multihost.broadcast(uuid.uuid4().hex)

    def make() -> None:
        if multihost.is_primary():
            shutil.rmtree(folder.processes, ignore_errors=True)
            folder.processes.mkdir()
            (folder.processes / "run").write_text(token)

    def see() -> None:
        for _ in range(60):  # some network file systems are slow to show what is new
            with contextlib.suppress(OSError):
                if (folder.processes / "run").read_text() == token:
                    return
            time.sleep(0.5)
        raise UserError(
            f"{folder.root} is not the folder that process 0 has made:\n"
            "--workdir must lie on a file system that all processes share."
        )

    multihost.all_or_none(make)
    multihost.all_or_none(see)


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
    if None in settings:
        raise UserError("give --cluster.num-processes and --cluster.process-id too (or --cluster.coordinator auto).")
    if config.process_id >= config.num_processes:
        raise UserError(
            f"--cluster.process-id is {config.process_id}: {config.num_processes} processes are counted from 0."
        )


def _initialize(config: ClusterConfig) -> None:
    jax.config.update("jax_enable_preemption_service", False)
    given = {}
    if config.coordinator != AUTO:
        given = {
            "coordinator_address": config.coordinator,
            "num_processes": config.num_processes,
            "process_id": config.process_id,
        }
        if config.coordinator.rpartition(":")[0] in ("127.0.0.1", "localhost"):
            given["coordinator_bind_address"] = config.coordinator  # jax would listen on every interface
    try:
        jax.distributed.initialize(
            **given,
            heartbeat_timeout_seconds=config.heartbeat_timeout,
            shutdown_timeout_seconds=config.shutdown_timeout,
        )
    except (ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the processes did not find each other by {config.coordinator}: {first[:200]}") from error


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of Orbax' is more than pages on a save that another process has left, which we say in a line."""
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error is None


def _code(module: str) -> dict[str, str]:
    """The versions of what computes: packages, and hashes of this package's and the experiment's source."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    versions = {name: metadata.version(name) for name in _PACKAGES}
    # The experiment, which is __main__, and what it has imported from its own package (beta_vae is made of vae).
    near = {name: one for name, one in sys.modules.items() if name.partition(".")[0] == module.partition(".")[0]}
    files = {getattr(one, "__file__", None) for one in [sys.modules["__main__"], *near.values()]} - {None}
    experiment = hashlib.sha256(b"\0".join(sorted(Path(file).read_bytes() for file in files)))
    return {
        "gm_jax": digest.hexdigest(),
        module: experiment.hexdigest(),
        "python": sys.version.split()[0],
        **versions,
    }


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a hash
