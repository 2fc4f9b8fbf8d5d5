"""What every test starts from: CPU, two virtual devices, and no silent broadcasting."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"

import signal

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def hangups_count():
    """SIGHUP as in a terminal, also if the tests were started under nohup, which lets it be ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def x64():
    """64-bit floats for the length of one test: for identities that are exact."""
    with jax.enable_x64(True):
        yield
