"""The index of losses, the flat namespace, and the examples in the docstrings."""

import ast
import doctest
import inspect
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import losses

MODULES = sorted(path.stem for path in pathlib.Path(losses.__file__).parent.glob("*.py") if path.stem != "__init__")


def public_functions(module_name):
    """Name -> function, for each public function that the module itself defines."""
    module = getattr(losses, module_name)
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


@pytest.mark.parametrize("module_name", MODULES)
def test_the_index_lists_every_public_function_and_no_other(module_name):
    section = losses.__doc__.split(f"\n{module_name}: ")[1].split("\n\n")[0]
    assert sorted(line.split()[0] for line in section.splitlines()[1:]) == sorted(public_functions(module_name))


def test_every_public_function_can_be_imported_from_losses():
    found = [item for module_name in MODULES for item in public_functions(module_name).items()]
    assert len(dict(found)) == len(found), "two losses share a name"
    assert {name: getattr(losses, name) for name, _ in found} == dict(found)
    assert sorted(losses.__all__) == sorted([*dict(found), *MODULES])


@pytest.mark.parametrize("module_name", MODULES)
def test_every_public_function_has_an_example_that_runs(module_name):
    finder = doctest.DocTestFinder(exclude_empty=False, recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST)
    for name, function in public_functions(module_name).items():
        (example,) = finder.find(function, name, globs={"jnp": jnp, "losses": losses})
        assert example.examples, f"{name} has no example"
        report = []
        with np.printoptions(precision=4):
            runner.run(example, out=report.append)
        assert not runner.failures, "".join(report)


@pytest.mark.parametrize("module_name", MODULES)
def test_no_docstring_repeats_when_shapes_are_checked(module_name):
    source = inspect.getsource(getattr(losses, module_name))
    docstrings = [
        ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
    ]
    assert not any("at trace time" in docstring for docstring in docstrings)
