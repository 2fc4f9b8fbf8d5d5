"""What a program runs on, as far as its last bits depend on it: the processor, its cores, the accelerator."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any


def processor() -> str:
    """Returns the model of this machine's processor."""
    names = _values("model name")
    return names[0] if names else platform.machine()


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instructions() -> str:
    """Returns a digest of the processor's instruction set; machines with the same one run each other's programs."""
    found = [platform.machine(), *sorted(set(_values("flags") + _values("Features")))]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def facts() -> dict[str, Any]:
    """Returns what the bits of a run depend on; starts jax."""
    import jax

    kinds = sorted({device.device_kind for device in jax.devices()})
    return {
        "processor": processor(),
        "instructions": instructions(),
        "cores": num_cores(),
        "device_kind": ", ".join(kinds),
    }


def _values(name: str) -> list[str]:
    """Returns the values of a field of Linux's /proc/cpuinfo, one per core."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    pairs = [line.partition(":") for line in lines]
    return [value.strip() for field, _, value in pairs if field.strip() == name]
