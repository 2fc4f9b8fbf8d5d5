"""The flags of a run by several processes."""

import dataclasses

from gm_jax.config import Count, CountOrZero


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Training by several processes, each with its own devices. It is not part of a run's configuration."""

    coordinator: str | None = None
    """Address of process 0, HOST:PORT, the same for all processes. Use auto on a TPU pod or under Slurm: jax then
    finds the address, the number of processes and the process id. Default: a single process."""
    num_processes: Count | None = None
    """Number of processes."""
    process_id: CountOrZero | None = None
    """Index of this process, counted from 0."""
    heartbeat_timeout: Count = 30
    """Seconds without a heartbeat after which a process counts as dead; all others then exit with code 1."""
    shutdown_timeout: Count = 120
    """Seconds that a finished process waits for the others."""
    stall_timeout: Count = 60
    """Seconds that a step, or any other phase of the run, may take before the run stops with an error; or 20 times the
    median time of that phase, if that is longer. The first time, which includes compilation, the limit is 60 times
    as long."""
