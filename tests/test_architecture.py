"""The laws of the house, read off the source: who may import whom, what a file is named, how long it may be.

Every name that a file imports, and every attribute that it reaches through an import, is resolved to its full dotted
name (`import jax` and then `jax.random.normal` is `jax.random.normal`). Imports inside functions and under
TYPE_CHECKING count. The checks are functions of (path, source), so that the tests at the end can show them sources that
break each law.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]

# What each part of gm_jax may import of the others, in the order of the house. Any part may import GROUND, which
# imports nothing. The empty name is gm_jax/__init__.py: every `from gm_jax import ...` executes it.
GROUND = {"errors", "hashing", "files", "signals"}
MODELLING = {"types", "ops", "losses", "networks", "samplers", "models"}
LIBRARY = {*MODELLING, "config", "training", "data", "evaluation", "plotting", "recipes"}
CODE = ("gm_jax", "experiments", "tools", "benchmarks")
MAY_IMPORT = {
    "": set(),
    "errors": set(),
    "hashing": set(),
    "files": set(),
    "signals": set(),
    "types": set(),
    "config": set(),
    "ops": {"types"},
    "losses": {"types", "ops"},
    "networks": {"types", "ops"},
    "samplers": {"types", "ops"},
    "models": MODELLING - {"models"},
    "training": {"types"},
    "data": set(),
    "evaluation": {"types", "ops", "networks"},
    "plotting": MODELLING,
    "recipes": LIBRARY - {"recipes"},
    "cluster": {"types", "config", "training"},
    "planning": {"types", "config", "training", "recipes"},
    "runner": {*LIBRARY, "cluster", "planning"},
    "comparison": {*LIBRARY, "runner"},
}


# Beyond the house: dotted prefixes that a room must not reach, and why.
PURE = "a loss is a deterministic function of arrays: noise is an argument"
MUST_NOT_REACH = {
    "types": {"flax": "the records know no network library", "optax": "the records know no optimiser"},
    "ops": {"flax": "ops are mathematics without parameters"},
    "losses": {"flax": PURE, "jax.random": PURE, "numpy.random": PURE, "random": PURE},
    "networks": {"optax": "networks know no optimiser"},
    "config": {name: "--help answers at once" for name in ("jax", "numpy", "flax", "optax")},
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
MOST_FUNCTION_LINES = 60
MOST_LINES = {"gm_jax/": 400, "gm_jax/models/": 250, "experiments/": 60}
# The modules of these rooms are steps of one command: their tests are named after what the command promises.
NOT_MIRRORED = {"runner", "cluster", "comparison", "recipes", "config"}


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
    allowed = MAY_IMPORT[here] | {here, "", *GROUND} if in_package else set(MAY_IMPORT)
    forbidden = NOBODY_REACHES | (MUST_NOT_REACH.get(here, {}) if in_package else {})
    broken = set()
    for line, name in reached_names(path, source):
        where = f"{path}:{line}: reaches {name}:"
        if lies_in(name, "gm_jax") and part_of(name) not in allowed:
            may = ", ".join(sorted(MAY_IMPORT[here])) or "no other room"
            broken.add(f"{where} {here or 'gm_jax itself'} may import {may}")
        if lies_in(name, "experiments") and path.startswith(("gm_jax/", "experiments/")):
            broken.add(f"{where} only tools, benchmarks and tests import experiments")
        if lies_in(name, "jax") and name.split(".")[-1] in TOPOLOGY and path not in TOPOLOGY_HOMES:
            broken.add(f"{where} where a step runs is decided in {', '.join(sorted(TOPOLOGY_HOMES))} alone")
        broken.update(f"{where} {why}" for prefix, why in forbidden.items() if lies_in(name, prefix))
    return sorted(broken)


def imported_files(path: str, source: str, files: Collection[str]) -> set[str]:
    """The files of the repository that a file imports: `from a.b import c` is a/b/c.py, or else what defines `c`."""
    found = set()
    for _, name, _ in imported_names(path, ast.parse(source, filename=path)):
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            stem = "/".join(parts[:count])
            match = next((file for file in (f"{stem}.py", f"{stem}/__init__.py") if file in files), None)
            if match is not None:
                found.add(match)
                break
    return found - {path}


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of files that import one another, each sorted: strongly connected components of two or more."""
    reachable = {path: set(files) for path, files in imports.items()}
    for middle in imports:
        for files in reachable.values():
            if middle in files:
                files |= reachable[middle]
    groups = {
        tuple(sorted(other for other in files if path in reachable.get(other, ()))) for path, files in reachable.items()
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def unlisted_files(init: str, source: str, paths: Iterable[str]) -> list[str]:
    """The files and folders next to a room's `__init__.py` that its docstring does not name."""
    folder = init.removesuffix("__init__.py")
    inside = {path.removeprefix(folder) for path in paths if path.startswith(folder)} - {"__init__.py"}
    stems = {path.split("/")[0].removesuffix(".py") for path in inside}
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(source)) or ""))
    return [f"{init}:1: the docstring does not name {stem}" for stem in sorted(stems - words)]


def broken_naming_laws(path: str) -> list[str]:
    """Files and folders named after no role: what they hold has a home with a name."""
    parts = [part.strip("_") for part in path.removesuffix(".py").split("/")]
    nameless = [part for part in parts if part in NAMELESS or part.endswith(("_utils", "_helpers"))]
    return [f"{path}:1: {part!r} does not say what is inside: name the role or the method" for part in nameless]


def broken_length_laws(path: str, source: str) -> list[str]:
    """Files that are longer than their part of the repository allows."""
    most = MOST_LINES[max((folder for folder in MOST_LINES if path.startswith(folder)), key=len)]
    lines = len(source.splitlines())
    return [f"{path}:{most + 1}: {lines} lines, at most {most}: it holds more than one thing"] if lines > most else []


def long_functions(path: str, source: str) -> list[str]:
    """Functions longer than one screen."""
    return [
        f"{path}:{node.lineno}: {node.name} has more than {MOST_FUNCTION_LINES} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MOST_FUNCTION_LINES
    ]


def unannotated_functions(path: str, source: str) -> list[str]:
    """Public functions and methods that lack the type of an argument or of the result."""

    def visit(body: list[ast.stmt], *, method: bool = False) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, method=True)
            elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                named = [one for one in arguments if not (method and one.arg in ("self", "cls"))]
                bare = [one.arg for one in named if one.annotation is None] + ["return"] * (node.returns is None)
                if bare:
                    yield f"{path}:{node.lineno}: {node.name} lacks the types of {', '.join(bare)}"

    return list(visit(ast.parse(source).body))


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
    return "\n".join(["laws of docs/design.md are broken:", *broken])


def test_imports_point_one_way():
    broken = [line for item in sources("gm_jax", "experiments").items() for line in broken_import_laws(*item)]
    assert not broken, report(broken)


def test_no_files_import_each_other_in_a_circle():
    files = sources("gm_jax", "experiments", "tools", "benchmarks")
    found = circles({path: imported_files(path, source, files) for path, source in files.items()})
    assert found == []


def test_every_room_names_its_files():
    files = sources("gm_jax")
    rooms = [path for path in files if path.endswith("/__init__.py") and path != "gm_jax/__init__.py"]
    broken = [line for room in rooms for line in unlisted_files(room, files[room], files)]
    assert not broken, report(broken)


def test_gm_jax_has_the_rooms_of_the_law_and_no_others():
    found = {path.split("/")[1].removesuffix(".py") for path in sources("gm_jax")} - {"__init__"}
    assert found <= set(MAY_IMPORT)


def test_every_file_is_named_after_its_role():
    broken = [
        line for path in sources("gm_jax", "experiments", "tests", "benchmarks") for line in broken_naming_laws(path)
    ]
    assert not broken, report(broken)


def test_no_file_is_longer_than_one_sitting():
    broken = [line for item in sources("gm_jax", "experiments").items() for line in broken_length_laws(*item)]
    assert not broken, report(broken)


def test_no_function_is_longer_than_one_screen():
    broken = [line for item in sources(*CODE).items() for line in long_functions(*item)]
    assert not broken, report(broken)


def test_every_public_function_is_annotated():
    broken = [line for item in sources(*CODE).items() for line in unannotated_functions(*item)]
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

ONLY_TOOLS = "only tools, benchmarks and tests import experiments"
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
    broken = broken_import_laws(path, source)
    assert any(law in line for line in broken), broken
    line_numbers = {int(line.split(":")[1]) for line in broken}
    assert line_numbers == {len(source.splitlines())}  # each of these sources offends on its last line


@pytest.mark.parametrize(("path", "source"), KEEPS)
def test_a_source_that_keeps_the_import_laws_passes(path, source):
    assert broken_import_laws(path, source) == []


def test_a_circle_of_files_is_found_wherever_its_imports_stand():
    files = {
        "a/__init__.py": "from a.x import f",
        "a/x.py": "def f():\n    from a import y",
        "a/y.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .z import Z",
        "a/z.py": "import a.x\nimport b",
        "b.py": "from a import f",
        "c.py": "from a import z",
    }
    imports = {path: imported_files(path, source, files) for path, source in files.items()}
    assert imports["a/x.py"] == {"a/y.py"}
    assert imports["b.py"] == {"a/__init__.py"}
    assert circles(imports) == [["a/__init__.py", "a/x.py", "a/y.py", "a/z.py", "b.py"]]
    assert circles({**imports, "a/y.py": set()}) == []


def test_a_file_that_its_room_does_not_name_is_found():
    paths = ["a/__init__.py", "a/x.py", "a/yx.py", "a/deep/__init__.py", "a/deep/z.py"]
    assert unlisted_files("a/__init__.py", '"""x.py  one\nyx.py deep/  two."""', paths) == []
    (line,) = unlisted_files("a/__init__.py", '"""yx.py  one, and deep/."""', paths)
    assert line.endswith("does not name x")


def test_a_nameless_file_is_found():
    for path in ("gm_jax/utils.py", "gm_jax/ops/_core.py", "tests/helpers/test_x.py", "gm_jax/data/image_utils.py"):
        assert broken_naming_laws(path), path
    assert broken_naming_laws("gm_jax/losses/score_matching.py") == []


def test_a_long_file_is_found():
    assert broken_length_laws("gm_jax/models/vae.py", "x\n" * 251)
    assert broken_length_laws("gm_jax/ops/reductions.py", "x\n" * 401)
    assert broken_length_laws("experiments/vae.py", "x\n" * 61)
    assert broken_length_laws("gm_jax/ops/reductions.py", "x\n" * 400) == []


def test_a_missing_mirror_is_found():
    package = ["gm_jax/types.py", "gm_jax/ops/__init__.py", "gm_jax/ops/reductions.py", "gm_jax/runner/cli.py"]
    assert len(missing_mirrors(package)) == 1
    assert "tests/ops/test_reductions.py is missing" in missing_mirrors(package)[0]
    assert missing_mirrors([*package, "tests/ops/test_reductions.py"]) == []


def test_a_long_function_is_found():
    long = "def f():\n" + "    x = 1\n" * 60
    assert long_functions("gm_jax/ops/reductions.py", long)
    assert long_functions("gm_jax/ops/reductions.py", long.replace("    x = 1\n", "", 1)) == []


def test_an_unannotated_function_is_found():
    assert unannotated_functions("a.py", "def f(x) -> int: ...")
    assert unannotated_functions("a.py", "class A:\n    def f(self, *, x: int): ...")
    assert unannotated_functions("a.py", "class A:\n    def f(self, x: int) -> int: ...\ndef _g(x): ...") == []
