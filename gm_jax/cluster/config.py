"""The flags of a run by several processes."""

import dataclasses

from gm_jax.config import Count, CountOrZero


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Training by several processes, each with its own devices; it is no part of a run's configuration."""

    coordinator: str | None = None
    """Where process 0 can be reached, HOST:PORT, the same for all processes; or auto, on a TPU pod or under Slurm,
    where jax finds this and the next two by itself. By default there is one process."""
    num_processes: Count | None = None
    """How many processes there are."""
    process_id: CountOrZero | None = None
    """Which of them this is, counted from 0."""
    heartbeat_timeout: Count = 30
    """Seconds after which a process that gives no heartbeat is given up, and the others leave."""
    shutdown_timeout: Count = 120
    """Seconds that a process which is done waits for the others."""
    stall_timeout: Count = 60
    """Seconds that a step, or another phase, may take before somebody is blamed; 20 times the median of its kind, if
    that is longer; 60 times as many the first time, when it compiles."""
