"""XLA's flags: set in time, once, for the device that is there, and not if they could do harm."""

import importlib.metadata
import importlib.util
import subprocess
import sys

import jax
import pytest

from gm_jax.runner import xla_flags
from gm_jax.runner.xla_flags import CONVOLUTIONS, DETERMINISTIC, FLAGS


@pytest.fixture
def fresh(monkeypatch):
    """(installed packages, jaxlib) -> makes this a process that has not imported jax, with these."""

    def make(*installed, jaxlib="0.10.2"):
        monkeypatch.delitem(sys.modules, "jax", raising=False)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: jaxlib)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in installed else None)

    return make


@pytest.mark.parametrize(
    ("installed", "flag"),
    [((), CONVOLUTIONS), (("jax_cuda12_plugin",), DETERMINISTIC), (("jax_rocm7_plugin",), DETERMINISTIC)],
)
def test_the_flag_of_the_device_is_added_once_to_the_flags_that_exist(fresh, installed, flag):
    fresh(*installed)
    environ = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    xla_flags.set_flags(environ)
    xla_flags.set_flags(environ)
    assert environ == {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {flag}"}


@pytest.mark.parametrize(
    ("installed", "choice"),
    [
        ((), "--xla_cpu_experimental_ynn_fusion_type=individual_dot"),
        (("jax_cuda13_plugin",), "--xla_gpu_exclude_nondeterministic_ops=false"),
    ],
)
def test_a_choice_of_the_user_is_kept(fresh, installed, choice):
    fresh(*installed)
    environ = {"XLA_FLAGS": choice}
    xla_flags.set_flags(environ)
    assert environ == {"XLA_FLAGS": choice}


@pytest.mark.parametrize(
    ("installed", "jaxlib"), [((), "0.11.2"), (("jax_cuda12_plugin",), "0.99.0"), (("libtpu",), "0.10.2")]
)
def test_no_flag_is_set_that_this_jaxlib_may_not_know_or_that_another_compiler_reads(fresh, installed, jaxlib):
    fresh(*installed, jaxlib=jaxlib)
    environ = {}
    xla_flags.set_flags(environ)
    assert environ == {}


def test_no_flag_is_set_after_jax_has_started(fresh, monkeypatch):
    fresh()
    monkeypatch.setitem(sys.modules, "jax", jax)
    environ = {}
    xla_flags.set_flags(environ)
    assert environ == {}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.device)
def test_this_jaxlib_knows_its_flags(flag):
    """An unknown flag ends the process at the first use of a device."""
    if importlib.metadata.version("jaxlib") not in flag.jaxlibs:
        pytest.skip("another jaxlib has other flags")
    program = f"import os; os.environ['XLA_FLAGS'] = '{flag.text}'; import jax; print(jax.jit(lambda x: x + 1)(1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
