"""The laws of the house, read off the source: who may import whom, where a thing lives, how long a file may grow.

Every name that a file imports, and every attribute that it reaches through an import, is resolved to its full
dotted name (`import jax` and then `jax.random.normal` is `jax.random.normal`), wherever in the file it stands. The
checks are functions of (path, source), so that the tests at the end can show them sources that break each law.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]

ROOMS = (
    *("ops", "losses", "networks", "samplers", "models", "training", "data", "evaluation"),
    *("plotting", "cluster", "planning", "comparison", "runner"),
)

# What each part of gm_jax may import of the others. The empty name is gm_jax/__init__.py, which stays empty-handed:
# it is executed by every `from gm_jax import ...`. `errors`, `hashing` and `files` know no other part; any room may use
# them.
MAY_IMPORT = {
    "": set(),
    "errors": set(),
    "hashing": set(),
    "files": set(),
    "types": set(),
    "ops": {"types"},
    "losses": {"types", "ops"},
    "networks": {"types", "ops"},
    "samplers": {"types", "ops"},
    "models": {"types", "ops", "losses", "networks", "samplers"},
    "training": {"types"},
    "data": set(),
    "evaluation": {"types", "ops", "networks"},
    "plotting": {"types", *ROOMS},
    "cluster": {"types", *ROOMS},
    "planning": {"types", *ROOMS},
    "comparison": {"types", *ROOMS},
    "runner": {"types", *ROOMS},
}

# Beyond the house: dotted prefixes that a room must not reach, and why.
PURE = "a loss is a deterministic function of arrays: noise is an argument"
MUST_NOT_REACH = {
    "types": {"flax": "the records know no network library", "optax": "the records know no optimiser"},
    "ops": {"flax": "ops are mathematics without parameters"},
    "losses": {"flax": PURE, "jax.random": PURE, "numpy.random": PURE, "random": PURE},
    "networks": {"optax": "networks know no optimiser"},
}
NOBODY_REACHES = {
    "jax._src": "public API of jax only",
    "pickle": "nothing is ever unpickled",
    "cloudpickle": "nothing is ever unpickled",
    "joblib": "nothing is ever unpickled",
}
TOPOLOGY = {"pmap", "Mesh", "make_mesh", "NamedSharding"}
TOPOLOGY_HOMES = {"gm_jax/training/parallel.py"}

NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
MOST_LINES = {"gm_jax/": 400, "gm_jax/models/": 250, "experiments/": 120}
# Its modules are steps of one command; tests/runner/ is named after what the command promises.
NOT_MIRRORED = {"runner", "cluster", "comparison"}


def imported_names(path: str, tree: ast.AST) -> Iterator[tuple[int, str, str | None]]:
    """Yields (line, dotted name, the name it is bound to) for each import; dynamic ones with a literal name too."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name, alias.asname
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = package[: len(package) - level + 1] if level else []
                prefix = ".".join([*parts, module] if module else parts)
                for alias in names:
                    yield node.lineno, f"{prefix}.{alias.name}", alias.asname or alias.name
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name, None


def reached_names(path: str, source: str) -> set[tuple[int, str]]:
    """(line, dotted name) of everything that `source` imports or reaches through an import."""
    tree = ast.parse(source, filename=path)
    imports = list(imported_names(path, tree))
    # `import a.b` binds `a`; an alias or a from-import binds the whole.
    bound = {alias or name.split(".")[0]: name if alias else name.split(".")[0] for _, name, alias in imports}
    reached = {(line, name) for line, name, _ in imports}
    for node in ast.walk(tree):
        attributes, root = [], node
        while isinstance(root, ast.Attribute):
            attributes.append(root.attr)
            root = root.value
        if attributes and isinstance(root, ast.Name) and root.id in bound:
            reached.add((node.lineno, ".".join([bound[root.id], *reversed(attributes)])))
    return reached


def lies_in(name: str, prefix: str) -> bool:
    """Whether the dotted `name` is `prefix` or lies within it."""
    return name == prefix or name.startswith(prefix + ".")


def part_of(name: str) -> str:
    """The part of gm_jax that a dotted name below it belongs to."""
    part = [*name.split("."), ""][1]
    return part if part in MAY_IMPORT else ""


def broken_import_laws(path: str, source: str) -> list[str]:
    """What a file reaches that it must not: one line for each, with file, line and law."""
    in_package = path.startswith("gm_jax/")
    here = part_of(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    allowed = MAY_IMPORT[here] | {here, "errors", "hashing", "files", ""} if in_package else set(MAY_IMPORT)
    forbidden = NOBODY_REACHES | (MUST_NOT_REACH.get(here, {}) if in_package else {})
    broken = set()
    for line, name in reached_names(path, source):
        where = f"{path}:{line}: reaches {name}:"
        if lies_in(name, "gm_jax") and part_of(name) not in allowed:
            may = ", ".join(sorted(MAY_IMPORT[here])) or "no other room"
            broken.add(f"{where} {here or 'gm_jax itself'} may import {may}")
        if lies_in(name, "experiments") and in_package and path != "gm_jax/comparison/families.py":
            broken.add(f"{where} nobody imports experiments")
        if lies_in(name, "jax") and name.split(".")[-1] in TOPOLOGY and path not in TOPOLOGY_HOMES:
            broken.add(f"{where} where a step runs is decided in {', '.join(sorted(TOPOLOGY_HOMES))} alone")
        broken.update(f"{where} {why}" for prefix, why in forbidden.items() if lies_in(name, prefix))
    return sorted(broken)


def broken_naming_laws(path: str) -> list[str]:
    """Files and folders named after no role: what they hold has a home with a name."""
    parts = [part.strip("_") for part in path.removesuffix(".py").split("/")]
    nameless = [part for part in parts if part in NAMELESS or part.endswith(("_utils", "_helpers"))]
    return [f"{path}:1: {part!r} says nothing of what is inside: name the role or the method" for part in nameless]


def broken_length_laws(path: str, source: str) -> list[str]:
    """Files longer than one sitting."""
    most = MOST_LINES[max((folder for folder in MOST_LINES if path.startswith(folder)), key=len)]
    lines = len(source.splitlines())
    return [f"{path}:{most + 1}: {lines} lines, at most {most}: it holds more than one thing"] if lines > most else []


def missing_mirrors(paths: Iterable[str]) -> list[str]:
    """Modules of a room without the test file of the same name."""
    paths = set(paths)
    missing = []
    for path in sorted(paths):
        top, room, *rest = path.split("/")
        if top != "gm_jax" or not rest or rest[-1] == "__init__.py" or room in NOT_MIRRORED:
            continue
        mirror = "/".join(["tests", room, *rest[:-1], f"test_{rest[-1]}"])
        if mirror not in paths:
            missing.append(f"{path}:1: tests mirror the package, file for file: {mirror} is missing")
    return missing


def sources(*folders: str) -> Mapping[str, str]:
    """The Python files under the repository's `folders`, by their path from its root."""
    files = sorted(file for folder in folders for file in (REPO / folder).rglob("*.py"))
    return {file.relative_to(REPO).as_posix(): file.read_text(encoding="utf-8") for file in files}


def report(broken: Iterable[str]) -> str:
    """The failures of one law, a line each."""
    return "\n".join(["design.md's laws are broken:", *broken])


def test_imports_point_one_way():
    broken = [line for item in sources("gm_jax", "experiments").items() for line in broken_import_laws(*item)]
    assert not broken, report(broken)


def test_gm_jax_has_the_rooms_of_the_law_and_no_others():
    found = {path.split("/")[1].removesuffix(".py") for path in sources("gm_jax")} - {"__init__"}
    assert found == set(MAY_IMPORT) - {""}


def test_every_file_is_named_after_its_role():
    broken = [
        line for path in sources("gm_jax", "experiments", "tests", "benchmarks") for line in broken_naming_laws(path)
    ]
    assert not broken, report(broken)


def test_no_file_is_longer_than_one_sitting():
    broken = [line for item in sources("gm_jax", "experiments").items() for line in broken_length_laws(*item)]
    assert not broken, report(broken)


def test_tests_mirror_the_package():
    broken = missing_mirrors(sources("gm_jax", "tests"))
    assert not broken, report(broken)


def test_losses_load_neither_flax_nor_optax():
    # What the source alone cannot show: that nothing which losses import brings them in.
    check = "import sys; from gm_jax import losses; sys.exit(', '.join({'flax', 'optax'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", check], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The checks themselves: a law that no source can break is no law.

BREAKS = [
    ("gm_jax/__init__.py", "from gm_jax import losses", "gm_jax itself may import no other room"),
    ("gm_jax/types.py", "from gm_jax import ops", "types may import no other room"),
    ("gm_jax/types.py", "import flax.linen as nn", "the records know no network library"),
    ("gm_jax/ops/reductions.py", "import flax", "ops are mathematics without parameters"),
    ("gm_jax/ops/reductions.py", "from gm_jax.losses import vae", "ops may import types"),
    ("gm_jax/losses/vae.py", "from flax import linen as nn", PURE),
    ("gm_jax/losses/vae.py", "import jax\nx = jax.random.normal", PURE),
    ("gm_jax/losses/vae.py", "import jax as j\nx = j.random.normal(key, (3,))", PURE),
    ("gm_jax/losses/vae.py", "from jax import random as r", PURE),
    ("gm_jax/losses/vae.py", "import jax.random", PURE),
    ("gm_jax/losses/vae.py", "from jax.random import normal", PURE),
    ("gm_jax/losses/vae.py", "import numpy as np\nx = np.random.default_rng(0)", PURE),
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
    ("gm_jax/evaluation/results.py", "from gm_jax import models", "evaluation may import networks, ops, types"),
    ("gm_jax/runner/train.py", "from experiments import vae", "nobody imports experiments"),
    ("gm_jax/models/vae.py", "import experiments.vae", "nobody imports experiments"),
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
    ("gm_jax/runner/config.py", "from typing import Literal\nx: Literal['jit', 'pmap']"),
    ("experiments/beta_vae.py", "from experiments import vae\nfrom gm_jax import runner, models, data"),
]


@pytest.mark.parametrize(("path", "source", "law"), BREAKS)
def test_a_source_that_breaks_an_import_law_is_named_with_its_line(path, source, law):
    broken = broken_import_laws(path, source)
    assert any(law in line for line in broken), broken
    line_numbers = {int(line.split(":")[1]) for line in broken}
    assert line_numbers == {len(source.splitlines())}  # each of these sources offends on its last line


@pytest.mark.parametrize(("path", "source"), KEEPS)
def test_a_source_that_keeps_the_import_laws_passes(path, source):
    assert broken_import_laws(path, source) == []


def test_a_nameless_file_is_found():
    for path in ("gm_jax/utils.py", "gm_jax/ops/_core.py", "tests/helpers/test_x.py", "gm_jax/data/image_utils.py"):
        assert broken_naming_laws(path), path
    assert broken_naming_laws("gm_jax/losses/score_matching.py") == []


def test_a_long_file_is_found():
    assert broken_length_laws("gm_jax/models/vae.py", "x\n" * 251)
    assert broken_length_laws("gm_jax/ops/reductions.py", "x\n" * 401)
    assert broken_length_laws("experiments/vae.py", "x\n" * 121)
    assert broken_length_laws("gm_jax/ops/reductions.py", "x\n" * 400) == []


def test_a_missing_mirror_is_found():
    package = ["gm_jax/types.py", "gm_jax/ops/__init__.py", "gm_jax/ops/reductions.py", "gm_jax/runner/cli.py"]
    assert len(missing_mirrors(package)) == 1
    assert "tests/ops/test_reductions.py is missing" in missing_mirrors(package)[0]
    assert missing_mirrors([*package, "tests/ops/test_reductions.py"]) == []
