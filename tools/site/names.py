"""The public names of the package, read off the source: what the API reference must show.

A public name is a function, a class, a constant or an alias that a module defines at its top level, without a leading
underscore. A name that a module only imports belongs to the page of the module that defines it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]


class Module(NamedTuple):
    """One module: its dotted name, its docstring and the public names that it defines, in the order of the file."""

    name: str
    docstring: str
    names: tuple[str, ...]


def rooms(package: Path = REPO / "gm_jax") -> dict[str, list[Module]]:
    """Returns the modules of each room, the room's own docstring first; a single file is a room of one module."""
    found = {}
    for path in sorted(package.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            files = sorted(path.rglob("*.py"), key=lambda file: (file.parent, file.name != "__init__.py", file.name))
            found[path.name] = [read(file, package.parent) for file in files]
        elif path.suffix == ".py" and path.name != "__init__.py":
            found[path.stem] = [read(path, package.parent)]
    return found


def read(path: Path, root: Path) -> Module:
    """Returns what a file defines; `root` is the folder that holds the package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    names = dict.fromkeys(name for node in tree.body for name in _defined(node) if not name.startswith("_"))
    return Module(name, ast.get_docstring(tree) or "", tuple(names))


def _defined(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def public_names() -> list[str]:
    """Returns the dotted name of everything public in gm_jax."""
    return [f"{module.name}.{name}" for modules in rooms().values() for module in modules for name in module.names]
