"""What every test starts from: CPU, two virtual devices, and no silent broadcasting.

GM_JAX_TEST_PLATFORM=cuda runs the tests on that platform instead, with matrix products in full precision. A test marked
`two_devices` is skipped if there are fewer, and one in float64 if the platform has none.
"""

import os

PLATFORM = os.environ.get("GM_JAX_TEST_PLATFORM", "cpu")
if PLATFORM == "cpu":
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
else:
    os.environ["JAX_PLATFORMS"] = f"{PLATFORM},cpu"
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several workers share the device

import gc  # noqa: E402
import signal  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.disable()  # tracing makes many objects and few circles: one search after each file takes 7% less time than many
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # commands that a test starts leave the user's cache alone


@pytest.fixture(autouse=True)
def _enough_devices(request):
    if request.node.get_closest_marker("two_devices") and len(jax.devices()) < 2:
        pytest.skip(f"needs two devices, and {PLATFORM} has {len(jax.devices())}")


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file():
    """Frees the programs that a file has compiled: together they take gigabytes, and the next file needs few."""
    yield
    jax.clear_caches()
    gc.collect()
    gc.freeze()  # what is left is modules, which later searches pass over


@pytest.fixture
def hangups_count():
    """SIGHUP as in a terminal, also if the tests were started under nohup, which lets it be ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def x64():
    """64-bit floats for the length of one test: for identities that are exact."""
    if PLATFORM == "tpu":
        pytest.skip("TPUs have no 64-bit floats")
    with jax.enable_x64(True):
        yield
