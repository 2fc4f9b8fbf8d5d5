"""The package as it is installed: its version, its lazy rooms, its type stub, and its dependencies.

Each dependency is declared in setup.cfg, pinned in requirements.txt, and in use.
"""

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gm_jax

REPO = Path(__file__).resolve().parents[1]

# Declared for another: what tfds.data_source imports without declaring it.
FOR_TFDS = {"importlib-resources", "pillow"}

# Of an extra: tools/convert_inception.py reads a checkpoint with it, and says so where it is not there.
OPTIONAL = {"torch"}


def requirements(text: str) -> dict[str, Requirement]:
    """The requirements in `text`, one a line, by normalised name."""
    lines = [line.strip() for line in text.splitlines()]
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def setup() -> configparser.ConfigParser:
    """setup.cfg."""
    config = configparser.ConfigParser()
    config.read(REPO / "setup.cfg", encoding="utf-8")
    return config


def ranges(*extras: str) -> dict[str, Requirement]:
    """What setup.cfg asks for, the named extras included."""
    config = setup()
    declared = requirements(config["options"]["install_requires"])
    for extra in extras:
        declared |= requirements(config["options.extras_require"][extra])
    return declared


def pins(file: str = "requirements.txt") -> dict[str, str]:
    """The versions of a file of pins; a line that is not an exact pin fails here."""
    exact = {}
    for name, requirement in requirements((REPO / file).read_text(encoding="utf-8")).items():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        assert not specifier.version.endswith("*"), requirement
        assert requirement.url is None, requirement
        exact[name] = specifier.version
    return exact


def needed_by(roots: Iterable[Requirement]) -> set[str]:
    """The names of `roots` and of all that they need here, extras included, as the installed metadata say."""
    found, queue = set(), [(canonicalize_name(root.name), "") for root in roots]
    while queue:
        name, extra = queue.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for needed in map(Requirement, metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                queue.extend((canonicalize_name(needed.name), wanted) for wanted in ("", *needed.extras))
    return {name for name, _ in found}


def imported_distributions(*folders: str) -> set[str]:
    """The distributions that provide what the Python files in `folders` import, wherever in the file."""
    modules = set()
    for file in (file for folder in folders for file in (REPO / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.split(".")[0])
    third_party = modules - set(sys.stdlib_module_names) - {"gm_jax", "experiments"}
    provided_by = metadata.packages_distributions()
    # A module without an installed distribution stands for itself, and so is reported.
    return {canonicalize_name(name) for module in third_party for name in provided_by.get(module, [module])}


def test_every_declared_requirement_is_pinned_within_its_range():
    tested = pins()
    for name, requirement in ranges("dev").items():
        assert name in tested, f"{requirement} is in setup.cfg and has no pin in requirements.txt"
        assert requirement.specifier.contains(tested[name]), f"{requirement} does not admit {tested[name]}"


def test_the_pins_are_the_whole_of_what_the_direct_ones_need():
    # So that `pip install -r requirements.txt` leaves nothing to the day on which it runs, and installs nothing idle.
    tested = pins()
    if any(metadata.version(name) != tested[name] for name in ranges("dev")):
        pytest.skip("another set than the tested one is installed, and its needs differ")
    assert needed_by(ranges("dev").values()) == set(tested)


def test_the_ranges_admit_the_next_jax():
    assert ranges()["jax"].specifier.contains("0.11.0")
    assert "3.12.0" in Requirement("python" + setup()["options"]["python_requires"]).specifier


def test_whatever_the_package_imports_is_declared():
    assert imported_distributions("gm_jax", "experiments") - set(ranges()) - OPTIONAL == set()


def test_whatever_is_declared_is_imported():
    assert set(ranges()) - imported_distributions("gm_jax", "experiments") - FOR_TFDS == set()


def test_the_packages_of_the_site_are_pinned_within_their_ranges():
    declared = requirements(setup()["options.extras_require"]["docs"])
    tested = pins("docs/requirements.txt")
    for name, requirement in declared.items():
        assert requirement.specifier.contains(tested[name]), f"{requirement} does not admit {tested[name]}"
    # The site is built from source alone: nothing of the package's own weight is installed for it.
    assert not {"jax", "flax", "numpy"} & set(tested)


def test_the_citation_has_the_version_and_the_licence_of_the_package():
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    metadata_of_setup = setup()["metadata"]
    assert citation["version"] == metadata_of_setup["version"]
    assert citation["license"] == metadata_of_setup["license"]
    assert f"## {citation['version']}" in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_workflow_calls_the_targets_of_make_that_ci_runs():
    jobs = yaml.safe_load((REPO / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    checked = set(jobs["check"]["strategy"]["matrix"]["target"])
    in_ci = set(re.findall(r"^make ([a-z-]+)", (REPO / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert checked == in_ci <= targets
    classifiers = re.findall(r"Python :: (3\.\d+)", setup()["metadata"]["classifiers"])
    assert jobs["wheel"]["strategy"]["matrix"]["python"] == classifiers
    assert jobs["wheel"]["steps"][-1]["run"].split()[:2] == ["make", "wheel"]


@pytest.mark.parametrize("name", ["bug_report", "method_request"])
def test_the_templates_of_issues_can_be_read(name):
    content = yaml.safe_load((REPO / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(content)
    for part in content["body"]:
        assert part["type"] in ("textarea", "checkboxes")
        assert part["attributes"]["label"]


def test_the_hooks_before_a_commit_call_the_tools_of_the_environment():
    (repository,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    modules = [re.fullmatch(r"\.venv/bin/python -m (\S+) .*", hook["entry"])[1] for hook in repository["hooks"]]
    assert modules == ["ruff", "ruff", "tools.results"]


def test_pyproject_holds_the_build_system_alone():
    lines = (REPO / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "[build-system]"
    assert len(lines) == 3


def rooms() -> set[str]:
    """The rooms and the single files of gm_jax, read off the disk."""
    package = REPO / "gm_jax"
    files = {file.stem for file in package.glob("*.py")} - {"__init__"}
    return files | {folder.parent.name for folder in package.glob("*/__init__.py")}


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_is_an_attribute_of_the_package(room):
    assert getattr(gm_jax, room).__name__ == f"gm_jax.{room}"
    assert room in dir(gm_jax)


def test_a_loss_is_reached_through_the_package():
    assert gm_jax.losses.vae.bernoulli_nll is gm_jax.losses.bernoulli_nll


def test_an_unknown_room_is_an_attribute_error_that_lists_the_rooms():
    with pytest.raises(AttributeError, match=r"no attribute 'loses'; it has .*losses.*__version__"):
        gm_jax.loses  # noqa: B018


def test_importing_the_package_imports_neither_jax_nor_a_room():
    code = (
        "import sys, gm_jax;"
        "heavy = {'jax', 'numpy', 'importlib.metadata'} & set(sys.modules); assert not heavy, heavy;"
        "loaded = {name for name in sys.modules if name.startswith('gm_jax.')}; assert not loaded, loaded;"
        "gm_jax.losses.vae.elbo; assert 'jax' in sys.modules and 'flax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_setup_cfg():
    assert gm_jax.__version__ == setup()["metadata"]["version"]


def test_the_type_stub_names_every_room():
    stub = ast.parse((REPO / "gm_jax" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert [alias.name for node in imports if node.module is None for alias in node.names] == sorted(rooms())
    assert [alias.name for node in imports if node.module is not None for alias in node.names] == ["open_run", "train"]


@pytest.mark.parametrize("name", ["open_run", "train"])
def test_the_functions_for_python_are_attributes_of_the_package(name):
    assert callable(getattr(gm_jax, name))
    assert name in dir(gm_jax)


def test_type_checkers_find_the_types_of_the_installed_package():
    packaged = setup()["options.package_data"]["gm_jax"].split()
    assert {"py.typed", "*.pyi"} <= set(packaged)
    assert (REPO / "gm_jax" / "py.typed").is_file()
