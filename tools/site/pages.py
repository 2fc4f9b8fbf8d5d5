"""Writes the generated pages of the site; mkdocs calls `on_config` and `on_files` (see mkdocs.yml).

The home page is README.md, `contributing.md` and `changelog.md` are the files of the same names, each notebook of
examples/ has a page with its outputs, and the API reference has one page for each room, with an entry for each public
name.
"""

import re
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))  # mkdocs imports this file by its path

from tools.site.docstrings import module_markdown  # noqa: E402
from tools.site.names import Module, rooms  # noqa: E402
from tools.site.notebooks import notebook_markdown  # noqa: E402

# Repository files that are pages of the site, and links to them from other pages.
COPIES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
MOVED = {"benchmarks/README.md": "benchmarks.md", **COPIES}


def on_config(config: Any) -> Any:
    """Adds the pages of notebooks and of the API reference to the navigation (a hook of mkdocs)."""
    for entry in config["nav"]:
        if "Examples" in entry:
            entry["Examples"] = ["examples.md", *notebook_pages()]
        if "API" in entry:
            entry["API"] = ["api/index.md", *(path for path in api_pages() if path != "api/index.md")]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages to the files of the site (a hook of mkdocs)."""
    from mkdocs.structure.files import File

    for path, content in generated().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Points links from docs/ to files of the root at their pages or entries, and shows code (a hook of mkdocs)."""
    markdown = re.sub(r"^<!-- code: (\S+) -->$", lambda found: _code(REPO / found[1]), markdown, flags=re.MULTILINE)
    markdown = re.sub(r"\]\((?:\.\./)+gm_jax/(\w+)/\w+\.py(#gm_jax[\w.]+)\)", r"](../api/\1.md\2)", markdown)
    markdown = re.sub(r"\]\(\.\./(examples/\w+\.\w+)\)", lambda found: f"]({_example(found[1])})", markdown)
    return re.sub(r"\]\(\.\./(?P<name>[A-Z]+\.md)\)", lambda found: f"]({COPIES[found['name']]})", markdown)


def _code(path: Path) -> str:
    """Returns a file as a block of code."""
    return f"```python\n{path.read_text(encoding='utf-8').rstrip()}\n```"


def _example(path: str) -> str:
    """Returns where the site shows a file of examples/: a notebook has a page, a script a section of examples.md."""
    name = Path(path).stem
    return f"examples/{name}.md" if name[0].isdigit() else f"examples.md#{name.replace('_', '-')}"


def generated() -> dict[str, str]:
    """Returns the generated pages: path in the site -> Markdown."""
    pages = {page: with_links_of_the_site((REPO / name).read_text(encoding="utf-8")) for name, page in COPIES.items()}
    return pages | notebook_pages() | api_pages()


def notebook_pages() -> dict[str, str]:
    """Returns one page for each notebook of examples/."""
    notebooks = sorted((REPO / "examples").glob("*.ipynb"))
    return {f"examples/{path.stem}.md": notebook_markdown(path) for path in notebooks}


def with_links_of_the_site(text: str) -> str:
    """Returns a page of the repository's root with its links as they are on the site, whose root is docs/."""

    def moved(match: re.Match[str]) -> str:
        path, anchor = match["path"], match["anchor"] or ""
        if path.startswith("examples/"):
            path = _example(path)
        return match["before"] + MOVED.get(path, path.removeprefix("docs/")) + anchor + match["after"]

    text = re.sub(r"(?P<before>\]\()(?P<path>[^)#:]+)(?P<anchor>#[^)]*)?(?P<after>\))", moved, text)
    return re.sub(r"(?P<before>src=\")(?P<path>[^\":]+)(?P<anchor>)(?P<after>\")", moved, text)


def api_pages() -> dict[str, str]:
    """Returns one page for each room of the package, and their index."""
    found = rooms()
    pages = {f"api/{room}.md": _room_page(room, modules) for room, modules in found.items()}
    rows = [
        f"| [`gm_jax.{room}`]({room}.md) | {_first_line(modules[0].docstring)} |" for room, modules in found.items()
    ]
    head = "# API reference\n\nEvery public function, class and constant, from its docstring.\n\n"
    return pages | {"api/index.md": head + "\n".join(["| room | what is inside |", "|---|---|", *rows]) + "\n"}


def _first_line(docstring: str) -> str:
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _room_page(room: str, modules: list[Module]) -> str:
    entries = {f"{module.name}.{name}" for module in modules for name in module.names}
    parts = [f"# {room}", module_markdown(modules[0].docstring, f"gm_jax.{room}", entries)]
    for module in modules:
        if module is not modules[0]:
            parts += [f"## {module.name.partition('.')[2]} {{ #{module.name} }}", module_markdown(module.docstring)]
        parts += [f"::: {module.name}.{name}" for name in module.names]
    return "\n\n".join(parts) + "\n"
