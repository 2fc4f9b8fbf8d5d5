"""Two good checkpoints, for the tests that damage them."""

import pathlib
import shutil

import pytest

from tests.training.saved_states import save_all


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """Two good checkpoints, 1 and 2; each test that damages them works on a copy."""
    directory = tmp_path_factory.mktemp("good") / "checkpoints"
    save_all(directory, [1, 2])
    return directory


@pytest.fixture
def copy_of_two(two_saved, tmp_path):
    return pathlib.Path(shutil.copytree(two_saved, tmp_path / "checkpoints"))
