"""Turns an executed notebook into a page of the site: its texts, its code and its outputs."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def notebook_markdown(path: Path) -> str:
    """Returns a notebook as Markdown.

    Args:
        path: an .ipynb file that was executed; pictures among its outputs become part of the page.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    parts = [part for cell in content["cells"] for part in _cell(cell)]
    where = f"*The notebook `examples/{path.name}`, with its outputs; the script beside it has the same cells.*"
    return "\n\n".join([parts[0], where, *parts[1:]]) + "\n"


def _cell(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"]).rstrip()
    yield source.replace("](../docs/", "](../") if cell["cell_type"] == "markdown" else _block(source, "python")
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        if "image/png" in data:
            encoded = "".join(data["image/png"]).replace("\n", "")
            yield f'<img src="data:image/png;base64,{encoded}" alt="the picture that the cell above shows">'
        else:
            yield _block("".join(output.get("text", data.get("text/plain", ""))).rstrip(), "text")


def _block(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
