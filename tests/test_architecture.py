"""The source keeps the laws of the house, and a source that breaks one is found."""

import subprocess
import sys

import pytest

from tests import architecture_laws as laws


def test_imports_point_one_way():
    broken = [line for item in laws.sources("gm_jax", "experiments").items() for line in laws.broken_import_laws(*item)]
    assert not broken, laws.report(broken)


def test_no_files_import_each_other_in_a_circle():
    files = laws.sources("gm_jax", "experiments", "tools", "benchmarks")
    found = laws.circles({path: laws.imported_files(path, source, files) for path, source in files.items()})
    assert found == []


def test_every_name_that_is_imported_exists():
    files = laws.sources(*laws.CODE, "examples", "tests", "docs")
    broken = [line for path, source in files.items() for line in laws.unknown_names(path, source, files)]
    assert not broken, laws.report(broken)


def test_every_room_names_its_files():
    files = laws.sources("gm_jax")
    rooms = [path for path in files if path.endswith("/__init__.py") and path != "gm_jax/__init__.py"]
    broken = [line for room in rooms for line in laws.unlisted_files(room, files[room], files)]
    assert not broken, laws.report(broken)


def test_gm_jax_has_the_rooms_of_the_law_and_no_others():
    found = {path.split("/")[1].removesuffix(".py") for path in laws.sources("gm_jax")} - {"__init__"}
    assert found <= set(laws.MAY_IMPORT)


def test_every_file_is_named_after_its_role():
    broken = [
        line
        for path in laws.sources("gm_jax", "experiments", "tests", "benchmarks")
        for line in laws.broken_naming_laws(path)
    ]
    assert not broken, laws.report(broken)


def test_no_file_is_longer_than_one_sitting():
    broken = [line for item in laws.sources("gm_jax", "experiments").items() for line in laws.broken_length_laws(*item)]
    assert not broken, laws.report(broken)


def test_no_function_is_longer_than_one_screen():
    broken = [line for item in laws.sources(*laws.CODE).items() for line in laws.long_functions(*item)]
    assert not broken, laws.report(broken)


def test_every_public_function_is_annotated():
    broken = [line for item in laws.sources(*laws.CODE).items() for line in laws.unannotated_functions(*item)]
    assert not broken, laws.report(broken)


def test_tests_mirror_the_package():
    broken = laws.missing_mirrors(laws.sources("gm_jax", "tests"))
    assert not broken, laws.report(broken)


def test_losses_load_neither_flax_nor_optax():
    # What the source alone cannot show: that nothing which losses import brings them in.
    check = "import sys; from gm_jax import losses; sys.exit(', '.join({'flax', 'optax'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", check], cwd=laws.REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The checks themselves: a law that no source can break is no law.

ONLY_TOOLS = "only tools, benchmarks and tests import experiments"
BREAKS = [
    ("gm_jax/__init__.py", "from gm_jax import losses", "gm_jax itself may import no other room"),
    ("gm_jax/types.py", "from gm_jax import ops", "types may import no other room"),
    ("gm_jax/types.py", "import flax.linen as nn", "the records know no network library"),
    ("gm_jax/ops/reductions.py", "import flax", "ops are mathematics without parameters"),
    ("gm_jax/ops/reductions.py", "from gm_jax.losses import vae", "ops may import types"),
    ("gm_jax/losses/vae.py", "from flax import linen as nn", laws.PURE),
    ("gm_jax/losses/vae.py", "import jax\nx = jax.random.normal", laws.PURE),
    ("gm_jax/losses/vae.py", "import jax as j\nx = j.random.normal(key, (3,))", laws.PURE),
    ("gm_jax/losses/vae.py", "from jax import random as r", laws.PURE),
    ("gm_jax/losses/vae.py", "import jax.random", laws.PURE),
    ("gm_jax/losses/vae.py", "from jax.random import normal", laws.PURE),
    ("gm_jax/losses/vae.py", "import numpy as np\nx = np.random.default_rng(0)", laws.PURE),
    ("gm_jax/losses/vae.py", "def f():\n    from gm_jax.networks import mlp", "losses may import ops, types"),
    ("gm_jax/losses/vae.py", "from ..networks import mlp", "losses may import ops, types"),
    ("gm_jax/losses/__init__.py", "from ..networks import mlp", "losses may import ops, types"),
    ("gm_jax/losses/vae.py", "from .. import models", "losses may import ops, types"),
    ("gm_jax/losses/vae.py", "import gm_jax.ops\nx = gm_jax.samplers.langevin", "losses may import ops, types"),
    ("gm_jax/losses/vae.py", "import importlib\nimportlib.import_module('gm_jax.networks')", "losses may import"),
    ("gm_jax/networks/mlp.py", "import optax", "networks know no optimiser"),
    ("gm_jax/networks/mlp.py", "from gm_jax import losses", "networks may import ops, types"),
    ("gm_jax/networks/mlp.py", "from gm_jax import samplers", "networks may import ops, types"),
    ("gm_jax/samplers/langevin.py", "from gm_jax import networks", "samplers may import ops, types"),
    ("gm_jax/models/vae.py", "from gm_jax.training import step", "models may import"),
    ("gm_jax/models/vae.py", "from gm_jax import data", "models may import"),
    ("gm_jax/training/step.py", "from gm_jax.models import vae", "training may import types"),
    ("gm_jax/training/step.py", "from gm_jax import losses", "training may import types"),
    ("gm_jax/training/step.py", "from gm_jax import networks", "training may import types"),
    ("gm_jax/training/step.py", "from gm_jax.data import pipeline", "training may import types"),
    ("gm_jax/data/pipeline.py", "from gm_jax.ops import binarization", "data may import no other room"),
    ("gm_jax/evaluation/results.py", "from gm_jax import models", "evaluation may import data, networks, ops, types"),
    ("gm_jax/runner/train.py", "from experiments import vae", ONLY_TOOLS),
    ("gm_jax/models/vae.py", "import experiments.vae", ONLY_TOOLS),
    ("experiments/beta_vae.py", "from experiments import vae", ONLY_TOOLS),
    ("gm_jax/config/fields.py", "import jax", "--help answers at once"),
    ("gm_jax/config/fields.py", "from gm_jax import recipes", "config may import no other room"),
    ("gm_jax/recipes/vae.py", "from gm_jax.runner import run", "recipes may import"),
    (
        "gm_jax/plotting/vae.py",
        "from gm_jax import recipes",
        "plotting may import losses, models, networks, ops, samplers, types",
    ),
    ("gm_jax/cluster/processes.py", "from gm_jax.runner import cli", "cluster may import config, training, types"),
    (
        "gm_jax/planning/plan.py",
        "from gm_jax.runner import run",
        "planning may import config, recipes",
    ),
    ("gm_jax/runner/cli.py", "from gm_jax import comparison", "runner may import"),
    ("gm_jax/training/loop.py", "import jax\njax.pmap(f)", "where a step runs"),
    ("gm_jax/training/loop.py", "from jax.sharding import Mesh", "where a step runs"),
    ("gm_jax/runner/train.py", "import jax\njax.sharding.NamedSharding(m, p)", "where a step runs"),
    ("experiments/vae.py", "from jax import pmap as p", "where a step runs"),
    ("gm_jax/training/checkpoint.py", "import pickle", "nothing is ever unpickled"),
    ("gm_jax/training/state.py", "from jax._src import core", "public API of jax only"),
]

KEEPS = [
    ("gm_jax/errors.py", "class UserError(Exception): ..."),
    ("gm_jax/losses/__init__.py", "from gm_jax.losses import vae\nfrom . import combine"),
    ("gm_jax/losses/vae.py", "import jax\nfrom gm_jax.ops import reductions\nx = jax.nn.softplus"),
    ("gm_jax/losses/vae.py", "from gm_jax.types import Array\nfrom ..ops import reductions"),
    ("gm_jax/models/vae.py", "from gm_jax import losses, networks, ops, samplers, types\nimport jax\njax.random.key"),
    ("gm_jax/data/sources.py", "from gm_jax.errors import UserError\nimport random"),
    ("gm_jax/training/parallel.py", "import jax\njax.pmap\nfrom jax.sharding import Mesh, NamedSharding"),
    ("gm_jax/training/loop.py", "from gm_jax.training import parallel\nparallel.pmap(step)"),
    ("gm_jax/runner/train.py", "from gm_jax import data, models, training"),
    ("gm_jax/config/sections.py", "from typing import Literal\nx: Literal['jit', 'pmap']"),
    ("gm_jax/data/array_cache.py", "from gm_jax import files, hashing"),
    ("gm_jax/comparison/measure.py", "from gm_jax.runner import run"),
    ("experiments/beta_vae.py", "from gm_jax import runner, models, data"),
    ("tools/gan_ablation.py", "from experiments import improved_gan"),
]


@pytest.mark.parametrize(("path", "source", "law"), BREAKS)
def test_a_source_that_breaks_an_import_law_is_named_with_its_line(path, source, law):
    broken = laws.broken_import_laws(path, source)
    assert any(law in line for line in broken), broken
    line_numbers = {int(line.split(":")[1]) for line in broken}
    assert line_numbers == {len(source.splitlines())}  # each of these sources offends on its last line


@pytest.mark.parametrize(("path", "source"), KEEPS)
def test_a_source_that_keeps_the_import_laws_passes(path, source):
    assert laws.broken_import_laws(path, source) == []


def test_a_circle_of_files_is_found_wherever_its_imports_stand():
    files = {
        "a/__init__.py": "from a.x import f",
        "a/x.py": "def f():\n    from a import y",
        "a/y.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .z import Z",
        "a/z.py": "import a.x\nimport b",
        "b.py": "from a import f",
        "c.py": "from a import z",
    }
    imports = {path: laws.imported_files(path, source, files) for path, source in files.items()}
    assert imports["a/x.py"] == {"a/y.py"}
    assert imports["b.py"] == {"a/__init__.py"}
    assert laws.circles(imports) == [["a/__init__.py", "a/x.py", "a/y.py", "a/z.py", "b.py"]]
    assert laws.circles({**imports, "a/y.py": set()}) == []


def test_a_name_that_was_moved_is_found():
    files = {
        "a/__init__.py": "from a import x as y",
        "a/x.py": "if b:\n    F: int = 1\nelse:\n    F = 2\ndef f(): G = 1\nfor i in F: pass",
    }
    assert (
        laws.unknown_names("b.py", "from a import x, y\nimport a.x\nfrom a.x import F, f, i\nimport other.x", files)
        == []
    )
    (line,) = laws.unknown_names("b.py", "from a import x\nfrom a.x import F, G", files)
    assert line == "b.py:2: a/x.py has no G"
    lazy = {**files, "a/x.py": "def __getattr__(name): ..."}
    assert laws.unknown_names("b.py", "from a.x import G", lazy) == []


def test_a_file_that_its_room_does_not_name_is_found():
    paths = ["a/__init__.py", "a/x.py", "a/yx.py", "a/deep/__init__.py", "a/deep/z.py"]
    assert laws.unlisted_files("a/__init__.py", '"""x.py  one\nyx.py deep/  two."""', paths) == []
    (line,) = laws.unlisted_files("a/__init__.py", '"""yx.py  one, and deep/."""', paths)
    assert line.endswith("does not name x")


def test_a_nameless_file_is_found():
    for path in ("gm_jax/utils.py", "gm_jax/ops/_core.py", "tests/helpers/test_x.py", "gm_jax/data/image_utils.py"):
        assert laws.broken_naming_laws(path), path
    assert laws.broken_naming_laws("gm_jax/losses/score_matching.py") == []


def test_a_long_file_is_found():
    assert laws.broken_length_laws("gm_jax/models/vae.py", "x\n" * 251)
    assert laws.broken_length_laws("gm_jax/ops/reductions.py", "x\n" * 401)
    assert laws.broken_length_laws("experiments/vae.py", "x\n" * 61)
    assert laws.broken_length_laws("gm_jax/ops/reductions.py", "x\n" * 400) == []


def test_a_missing_mirror_is_found():
    package = ["gm_jax/types.py", "gm_jax/ops/__init__.py", "gm_jax/ops/reductions.py", "gm_jax/runner/cli.py"]
    assert len(laws.missing_mirrors(package)) == 1
    assert "tests/ops/test_reductions.py is missing" in laws.missing_mirrors(package)[0]
    assert laws.missing_mirrors([*package, "tests/ops/test_reductions.py"]) == []


def test_a_long_function_is_found():
    long = "def f():\n" + "    x = 1\n" * 60
    assert laws.long_functions("gm_jax/ops/reductions.py", long)
    assert laws.long_functions("gm_jax/ops/reductions.py", long.replace("    x = 1\n", "", 1)) == []


def test_an_unannotated_function_is_found():
    assert laws.unannotated_functions("a.py", "def f(x) -> int: ...")
    assert laws.unannotated_functions("a.py", "class A:\n    def f(self, *, x: int): ...")
    assert laws.unannotated_functions("a.py", "class A:\n    def f(self, x: int) -> int: ...\ndef _g(x): ...") == []
