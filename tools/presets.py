"""Writes the sections of docs/presets.md from the presets in gm_jax/recipes/presets/.

python -m tools.presets             # rewrites what lies between the markers of the page
python -m tools.presets --check     # changes nothing; exit code 2 if the page and the presets differ
"""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from gm_jax import runner
from gm_jax.config import saved
from gm_jax.errors import UserError
from gm_jax.files import write_text
from gm_jax.recipes import presets
from gm_jax.recipes.presets import Preset
from gm_jax.runner import train

PAGE = Path(__file__).resolve().parents[1] / "docs" / "presets.md"
_MARKED = re.compile(r"(<!-- presets -->).*(<!-- /presets -->)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes the sections of docs/presets.md from the presets."""

    check: bool = False
    """Only report whether the page differs from the presets."""


def update(config: Config) -> str:
    """Rewrites the page, or checks it; returns what was done.

    Raises:
        UserError: with `check`, the page differs from the presets.
    """
    text = rendered_page()
    if text == PAGE.read_text(encoding="utf-8"):
        return "docs/presets.md is up to date"
    if config.check:
        raise UserError("docs/presets.md differs from gm_jax/recipes/presets/: run `python -m tools.presets`.")
    write_text(PAGE, text)
    return "rewrote docs/presets.md"


def rendered_page() -> str:
    """Returns the page with its sections as the presets have them."""
    text = PAGE.read_text(encoding="utf-8")
    sections = "\n\n".join([_index(), *(section(preset) for preset in presets.PRESETS.values())])
    return _MARKED.sub(lambda found: f"{found[1]}\n\n{sections}\n\n{found[2]}", text)


def section(preset: Preset) -> str:
    """Returns the section of a preset, as Markdown."""
    experiment, _, name = preset.name.partition("/")
    command = f"python -m experiments.{experiment}"
    lines = [
        f"## {preset.title} {{ #{_anchor(preset)} }}",
        "",
        f"- **Source**: {preset.source}.",
        f"- **Published**: {preset.published or 'nothing'}.",
        f"- **Parameters**: {preset.parameters:,}. {preset.count}",
        *(["- **Not as in the source**:"] if preset.not_as_published else []),
        *(f"    - {departure}" for departure in preset.not_as_published),
        "",
        "```sh",
        f"{command} --preset {name}                              # trains",
        f"{command} plan --preset {name} --topology v5e:2x4      # estimates the cost on TPUs",
        *([_evaluation(command, preset)] if "FID" in preset.published or "Inception" in preset.published else []),
        "```",
        "",
        f"What the preset sets, if it is not the default of `experiments/{experiment}.py`:",
        "",
        "```text",
        *settings(preset),
        "```",
    ]
    return "\n".join(lines)


def _evaluation(command: str, preset: Preset) -> str:
    """Returns the command that measures what was published, of the last checkpoint and not of the best likelihood."""
    experiment = command.rpartition(".")[2]
    workdir = train.default_workdir(Path("runs") / experiment, "", preset.config.data.name)
    num = 5_000 if "5,000 samples" in preset.published else 50_000
    return (
        f"{command} evaluate --workdir {workdir} --checkpoint latest \\\n"
        f"    --features inception --weights inception.safetensors --num-generated {num} --real-split train"
    )


def settings(preset: Preset) -> list[str]:
    """Returns a line for each field in which a preset differs from its experiment's defaults, aligned."""
    module = importlib.import_module(f"experiments.{preset.name.partition('/')[0]}")
    own, usual = saved.facts(preset.config), saved.facts(_with_sections(module.CONFIG, preset.config))
    changed = {f"--{name.replace('_', '-')}": value for name, value in own.items() if value != usual.get(name)}
    width = max(map(len, changed))
    return [f"{name:{width}}  {_text(value)}" for name, value in changed.items()]


def _with_sections(config: Any, like: Any) -> Any:
    """Returns a configuration with the default section of each kind that another has chosen, e.g. a U-Net."""
    chosen = {name: type(getattr(like, name)) for name in train.choices(type(like)) if getattr(like, name) is not None}
    return dataclasses.replace(config, **{name: kind() for name, kind in chosen.items()})


def _index() -> str:
    rows = [
        f"| [{preset.title}](#{_anchor(preset)}) | `experiments.{preset.name.replace('/', ' --preset ')}` | "
        f"{preset.parameters:,} | {preset.published or 'nothing'} |"
        for preset in presets.PRESETS.values()
    ]
    return "\n".join(["| preset | command | parameters | published |", "|---|---|---|---|", *rows])


def _anchor(preset: Preset) -> str:
    return preset.name.replace("/", "-").replace("_", "-")


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    runner.program(Config, update)
