"""How XLA compiles for a CPU, set before jax starts, because later it has no effect.

jaxlib 0.10.2 hands convolutions to a library that gives each of them one thread. With XLA's own convolutions a step of
RealNVP takes half the time on two cores, and a step of a gated PixelCNN four fifths (`benchmarks/`). In your own code,
use XLA_FLAGS in the environment or `compiler_options` of `jax.jit`.
"""

import importlib.metadata
import importlib.util
import sys
from collections.abc import MutableMapping

FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"

_KNOWN_JAXLIB = {"0.10.2"}  # XLA ends a process with unknown flags
_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")  # they read XLA_FLAGS too


def set_flags(environ: MutableMapping[str, str]) -> None:
    """Adds the flag to XLA_FLAGS, unless it is there, jax is imported already, or it could do harm."""
    flags = environ.get("XLA_FLAGS", "")
    if FLAG.split("=")[0] in flags or "jax" in sys.modules:
        return
    if importlib.metadata.version("jaxlib") not in _KNOWN_JAXLIB:
        return
    if not any(importlib.util.find_spec(name) for name in _ACCELERATORS):
        environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()
