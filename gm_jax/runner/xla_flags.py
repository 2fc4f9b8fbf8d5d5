"""The flags of XLA that commands set before jax starts, because later they have no effect.

CONVOLUTIONS, on CPUs: jaxlib 0.10.2 hands convolutions to a library that gives each of them one thread. With XLA's own
convolutions a step of RealNVP takes half the time on two cores, and a step of a gated PixelCNN four fifths
(`benchmarks/`).

DETERMINISTIC, on GPUs: without it some operations add in any order, and a resumed run has other bits than an
uninterrupted one (`docs/accelerator.md`).

A flag that XLA_FLAGS has already is left as it is, so that `--xla_gpu_exclude_nondeterministic_ops=false` in the
environment turns the second one off. In your own code, set XLA_FLAGS or use `compiler_options` of `jax.jit`.
"""

import importlib.metadata
import importlib.util
import sys
from collections.abc import MutableMapping
from typing import Literal, NamedTuple


class Flag(NamedTuple):
    """A flag, the devices that it is for, and the versions of jaxlib that are known to take it."""

    text: str
    device: Literal["cpu", "gpu"]
    jaxlibs: frozenset[str]  # XLA ends a process with unknown flags


CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true"
FLAGS = (
    Flag(CONVOLUTIONS, "cpu", frozenset({"0.10.2"})),
    Flag(DETERMINISTIC, "gpu", frozenset({"0.10.2", "0.11.2"})),
)

_GPU_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")


def set_flags(environ: MutableMapping[str, str]) -> None:
    """Adds the flags for this machine to XLA_FLAGS, unless they are there or jax is imported already."""
    if "jax" in sys.modules:
        return
    device, jaxlib = _device(), importlib.metadata.version("jaxlib")
    for flag in FLAGS:
        before = environ.get("XLA_FLAGS", "")
        if flag.device == device and jaxlib in flag.jaxlibs and flag.text.partition("=")[0] not in before:
            environ["XLA_FLAGS"] = f"{before} {flag.text}".strip()


def _device() -> str:
    """Returns which kind of device this environment is for, by what is installed; each reads XLA_FLAGS."""
    if importlib.util.find_spec("libtpu"):
        return "tpu"
    return "gpu" if any(importlib.util.find_spec(name) for name in _GPU_PLUGINS) else "cpu"
