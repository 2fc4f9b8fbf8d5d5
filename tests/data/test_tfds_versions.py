"""Versions of prepared data sets: a run keeps the one that it read."""

import pytest

from gm_jax.data import sources
from gm_jax.errors import UserError
from tests.data.tfds_examples import examples, prepare


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_the_spec_keeps_the_version_that_was_read(tmp_path):
    for version, seed in (("1.0.0", 1), ("1.9.0", 2)):
        prepare(tmp_path, {"train": examples(6, seed=seed), "test": examples(2)}, version=version)
    for _ in range(2):  # decoded, then from the cache
        assert sources.load("tiny", str(tmp_path)).spec.version == "1.9.0"
    assert sources.load("tiny:1.0.0", str(tmp_path)).spec.version == "1.0.0"
    assert sources.load("digits").spec.version is None


def test_a_run_keeps_its_version_after_a_newer_one_is_prepared(tmp_path):
    for version, seed in (("1.0.0", 1), ("1.9.0", 2)):
        prepare(tmp_path, {"train": examples(6, seed=seed), "test": examples(2)}, version=version)
    before = sources.load("tiny", str(tmp_path)).spec
    prepare(tmp_path, {"train": examples(6, seed=3), "test": examples(2)}, version="1.10.0")
    assert sources.load_again("tiny", before, str(tmp_path)).spec == before
    # A run of before versions were kept: its fingerprint chooses.
    assert sources.load_again("tiny", before._replace(version=None), str(tmp_path)).spec == before
    assert sources.load("tiny", str(tmp_path)).spec.version == "1.10.0"
    unknown = before._replace(version=None, fingerprint="0" * 64)
    assert sources.load_again("tiny", unknown, str(tmp_path)).spec.version == "1.10.0"


def test_a_run_keeps_its_version_of_a_configuration(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, config="blur")
    before = sources.load("tiny/blur", str(tmp_path)).spec
    prepare(tmp_path, {"train": examples(6, seed=3), "test": examples(2)}, config="blur", version="2.0.0")
    assert sources.load_again("tiny/blur", before, str(tmp_path)).spec == before


def test_a_version_that_is_gone_is_named_with_those_that_are_there(tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)}, version="2.0.0")
    before = sources.load("tiny", str(tmp_path)).spec
    with pytest.raises(UserError, match=r"version 1\.0\.0 of 'tiny'; prepared here: 2\.0\.0") as caught:
        sources.load_again("tiny", before._replace(version="1.0.0"), str(tmp_path))
    assert "--data-dir" in str(caught.value)


@pytest.mark.parametrize("name", ["digits", "toy:two_moons"])
def test_a_source_without_versions_is_loaded_again(name):
    spec = sources.load(name).spec
    assert sources.load_again(name, spec).spec == spec


@pytest.mark.parametrize("version", ["../..", "9" * 300, "1.0.0\n", ["1.0.0"], 1])
def test_a_saved_version_that_is_none_is_a_user_error(version, tmp_path):
    prepare(tmp_path, {"train": examples(6), "test": examples(2)})
    before = sources.load("tiny", str(tmp_path)).spec
    with pytest.raises(UserError):
        sources.load_again("tiny", before._replace(version=version), str(tmp_path))
