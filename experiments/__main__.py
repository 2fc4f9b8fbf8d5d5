"""Lists the experiments, with a line each: python -m experiments."""

import ast
from pathlib import Path

from gm_jax.cluster import detached_output


def main() -> None:
    """Prints the name and the first line of every experiment in this folder; imports none of them."""
    files = [path for path in sorted(Path(__file__).parent.glob("*.py")) if not path.stem.startswith("_")]
    width = max(len(path.stem) for path in files)
    for path in files:
        described = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"python -m experiments.{path.stem:{width}}  {described.splitlines()[0]}")
    print("\nEach has --help, and the verbs evaluate, sample and plan.")


if __name__ == "__main__":
    detached_output.reopen_closed()
    with detached_output.detached():
        main()
