"""XLA's flags on a CPU: set in time, once, and not where they could do harm."""

import importlib.metadata
import importlib.util
import subprocess
import sys

import jax
import pytest

from gm_jax.runner import cpu_flags
from gm_jax.runner.cpu_flags import FLAG


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not imported jax, of the known version, without accelerator."""
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_the_flag_is_added_once_to_the_flags_that_exist(fresh):
    environ = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    cpu_flags.set_flags(environ)
    cpu_flags.set_flags(environ)
    assert environ == {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {FLAG}"}


def test_a_choice_of_the_user_is_kept(fresh):
    environ = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=individual_dot"}
    cpu_flags.set_flags(environ)
    assert environ == {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=individual_dot"}


@pytest.mark.parametrize("why", ["jax has started", "another jaxlib", "an accelerator"])
def test_the_flag_is_not_set_if_it_could_do_harm(fresh, monkeypatch, why):
    if why == "jax has started":
        monkeypatch.setitem(sys.modules, "jax", jax)
    elif why == "another jaxlib":
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.11.0")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "libtpu" else None)
    environ = {}
    cpu_flags.set_flags(environ)
    assert environ == {}


@pytest.mark.skipif(importlib.metadata.version("jaxlib") != "0.10.2", reason="another jaxlib has other flags")
def test_this_jaxlib_knows_the_flag():
    """An unknown flag ends the process at the first use of a device."""
    program = f"import os; os.environ['XLA_FLAGS'] = '{FLAG}'; import jax; print(jax.jit(lambda x: x + 1)(1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
