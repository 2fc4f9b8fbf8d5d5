"""The laws of the house, read off the source: who may import whom, what a file is named, how long it may be.

Every name that a file imports, and every attribute that it reaches through an import, is resolved to its full dotted
name (`import jax` and then `jax.random.normal` is `jax.random.normal`). Imports inside functions and under
TYPE_CHECKING count. The checks are functions of (path, source). The tests show them sources that break each law.
"""

import ast
import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

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
    "evaluation": {"types", "ops", "networks", "data"},
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


def unknown_names(path: str, source: str, files: Mapping[str, str]) -> list[str]:
    """What a file imports from a file of ours that does not bind that name: it was renamed, or it moved."""
    unknown = []
    for line, name, _ in imported_names(path, ast.parse(source, filename=path)):
        parts = name.split(".")
        for count in range(len(parts) - 1, 0, -1):
            stem = "/".join(parts[:count])
            match = next((file for file in (f"{stem}.py", f"{stem}/__init__.py") if file in files), None)
            if match is not None:
                is_file = {f"{stem}/{parts[count]}.py", f"{stem}/{parts[count]}/__init__.py"} & set(files)
                if not is_file and not {parts[count], "__getattr__"} & _bound(files[match]):
                    unknown.append(f"{path}:{line}: {match} has no {parts[count]}")
                break
    return unknown


@functools.cache
def _bound(source: str) -> frozenset[str]:
    """The names that a module binds outside of its functions and classes."""

    def visit(nodes: Iterable[ast.AST]) -> Iterator[str]:
        for node in nodes:
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    yield name
                case ast.Import(names=names) | ast.ImportFrom(names=names):
                    yield from (alias.asname or alias.name.split(".")[0] for alias in names)
                case ast.Name(id=name, ctx=ast.Store()):
                    yield name
                case ast.Lambda():
                    pass
                case _:
                    yield from visit(ast.iter_child_nodes(node))

    return frozenset(visit(ast.parse(source).body))


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
