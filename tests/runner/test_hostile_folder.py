"""A run's folder from others: whatever its files hold, it is read, or refused in three lines that name the file."""

import json
import os
import pathlib
import shutil
import struct
import types

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments import vae
from gm_jax import errors, hashing
from gm_jax.config import saved
from gm_jax.data import sources
from gm_jax.errors import UserError
from gm_jax.evaluation import features, results
from gm_jax.recipes import configs
from gm_jax.runner import measure, resume
from gm_jax.runner.folder import Folder, record_versions
from gm_jax.runner.run import reopen
from gm_jax.training import metrics
from gm_jax.training.checkpoint import Checkpointer

STATE = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.arange(3)}
SPEC = sources.Spec("digits", (8, 8, 1), 17, 10, "0" * 64)
RECORD = results.Record("nll", 1.5, "nats", "exact", "digits", "binary", "test", 180, {"seed": 0})
LINE = '{"step": 10, "split": "train", "loss": 1.5}\n'
NESTED = b"[" * 100_000 + b"]" * 100_000
NESTED_OBJECTS = b'{"config":' * 100_000 + b"1" + b"}" * 100_000
ARABIC = "\u0661\u0660"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with every file that is read: config, versions, results, metrics, two checkpoints, weights."""
    root = tmp_path_factory.mktemp("good")
    saved.save(root / "config.json", vae.CONFIG.recipe, vae.CONFIG, data=SPEC._asdict(), command="experiments.vae")
    record_versions(root / "versions.json", {})
    results.write(root / "results.json", [RECORD])
    (root / "metrics.jsonl").write_text(LINE * 3)
    with Checkpointer(root / "checkpoints") as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, STATE, metric=float(step))
    features.write_weights(root / "w", {"kernel": np.zeros((2, 3), np.float32)}, {"source": "here"})
    return root


def content(new):
    return lambda file: file.write_bytes(new if isinstance(new, bytes) else new.encode())


def other(make):
    def damage(file):
        file.unlink()
        make(file)

    return damage


def edited(*path, to):
    """Replaces a value in a JSON file."""

    def damage(file):
        tree = json.loads(file.read_text())
        *parents, last = path
        at = tree
        for key in parents:
            at = at[key]
        at[last] = to
        file.write_text(json.dumps(tree))

    return damage


def twice(file):
    """Gives a key two values."""
    file.write_text(file.read_text().replace("{", '{"config": {}, "config": {},', 1))


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


# What any file may be; the names are those of damages.
ANY = {
    "empty": content(b""),
    "zeros": content(bytes(512)),
    "not UTF-8": content(b'{"a": "\xff\xfe"}'),
    "half an object": content(b'{"recipe": "gm_jax'),
    "nested lists": content(NESTED),
    "nested objects": content(NESTED_OBJECTS),
    "nested 500 deep": content(json.dumps(deep(500))),
    "a number of 5,000 digits": content(b"9" * 5000),
    "infinity": content(b"Infinity"),
    "larger than memory": lambda file: os.truncate(file, 2**42),
    "a folder": other(pathlib.Path.mkdir),
    "a pipe": other(os.mkfifo),
    "the device of zeros": other(lambda file: file.symlink_to("/dev/zero")),
    "a link to itself": other(lambda file: file.symlink_to(file)),
}

CONFIG = {
    **{name: (damage, "config.json") for name, damage in ANY.items() if name != "a link to itself"},
    "a link to itself": (ANY["a link to itself"], str),
    "null": (content(b"null"), "config.json"),
    "a list": (content(b"[]"), "config.json"),
    "a key twice": (twice, "config.json"),
    "a recipe of a number": (edited("recipe", to=7), "config.json"),
    "a recipe of another module": (edited("recipe", to="os:system"), "another experiment"),
    "a recipe that steers a terminal": (edited("recipe", to="\x1b]0;x\x07\n\n\n\n"), str),
    "a recipe of 10^6 letters": (edited("recipe", to="x" * 10**6), str),
    "an unknown key": (edited("code", to="print()"), "config.json"),
    "an identity of a number": (edited("identity", to=3), "config.json"),
    "a config of a list": (edited("config", to=[]), "config.json"),
    "a section of a number": (edited("config", "train", to=3), "train"),
    "a section that is empty": (edited("config", "train", to={}), "batch_size"),
    "a field of another type": (edited("config", "hidden", to="many"), "hidden"),
    "a field in Arabic digits": (edited("config", "latent_dim", to=ARABIC), "latent_dim"),
    "a field of true": (edited("config", "latent_dim", to=True), "latent_dim"),
    "a rate of true": (edited("config", "optimizer", "learning_rate", to=True), "learning_rate"),
    "a field of a list": (edited("config", "latent_dim", to=[2]), "latent_dim"),
    "a field of -5": (edited("config", "latent_dim", to=-5), "latent_dim"),
    "a field of 10^100": (edited("config", "latent_dim", to=10**100), "config.json"),
    "a rate of NaN": (edited("config", "optimizer", "learning_rate", to=float("nan")), "config.json"),
    "a rate of 1e999": (
        lambda file: file.write_text(file.read_text().replace('"learning_rate": 0.001', '"learning_rate": 1e999')),
        "config.json",
    ),
    "a seed of 2^40": (edited("config", "train", "seed", to=2**40), "seed"),
    "data null": (edited("data", to=None), "config.json"),
    "data of other fields": (edited("data", to={"x": 1}), "config.json"),
    "a shape of a number": (edited("data", "shape", to=8), "config.json"),
    "a shape of words": (edited("data", "shape", to=["8", "8", "1"]), "config.json"),
    "a shape of -8": (edited("data", "shape", to=[-8, 8, 1]), "config.json"),
    "a shape of 10^18": (edited("data", "shape", to=[10**18, 8, 1]), "config.json"),
    "a shape of nothing": (edited("data", "shape", to=[]), "config.json"),
    "levels of words": (edited("data", "levels", to="many"), "config.json"),
    "levels of 10^6": (edited("data", "levels", to=10**6), "config.json"),
    "a cut that is a list": (edited("data", "cut", to=["x"]), "config.json"),
    "a size that is text": (edited("data", "size", to="big"), "config.json"),
    "classes of -1": (edited("data", "num_classes", to=-1), "config.json"),
    "a fingerprint of a list": (edited("data", "fingerprint", to=[]), "config.json"),
    "a name of a number": (edited("data", "name", to=5), "config.json"),
}
VERSIONS = {
    **{name: (damage, "versions.json") for name, damage in ANY.items() if name != "a link to itself"},
    "a link to itself": (ANY["a link to itself"], None),
    "an object": (content(b'{"python": "3"}'), "versions.json"),
    "null": (content(b"null"), "versions.json"),
    "a list of numbers": (content(b"[1, 2]"), None),
}
RESULTS = {
    **{name: (damage, "results.json") for name, damage in ANY.items() if name != "a link to itself"},
    "a link to itself": (ANY["a link to itself"], None),
    "an object": (content(b"{}"), None),
    "null": (content(b"null"), "results.json"),
    "a list of numbers": (content(b"[1]"), "results.json"),
    "a record of other fields": (content(b'[{"name": "nll"}]'), "results.json"),
    "a value in words": (edited(0, "value", to="small"), "results.json"),
    "a value of NaN": (edited(0, "value", to=float("nan")), "results.json"),
    "settings of a list": (edited(0, "settings", to=[]), "results.json"),
    "examples in words": (edited(0, "examples", to=ARABIC), "results.json"),
    "a name of a list": (edited(0, "name", to=["nll"]), "results.json"),
}
# What is not a line of metrics ends them, as a torn line does.
METRICS = {
    **{name: (damage, None) for name, damage in ANY.items()},
    "a folder": (ANY["a folder"], "metrics.jsonl"),
    "a pipe": (ANY["a pipe"], "metrics.jsonl"),
    "the device of zeros": (ANY["the device of zeros"], "metrics.jsonl"),
    "a step in Arabic digits": (content(LINE.replace("10", f'"{ARABIC}"') + LINE), None),
    "a step of a list": (content(LINE.replace("10", "[10]") + LINE), None),
    "a step of 10^100": (content(LINE.replace("10", "1" + "0" * 100) + LINE), None),
    "a value of NaN": (content(LINE.replace("1.5", "NaN") + LINE), None),
    "a value of 1e999": (content(LINE.replace("1.5", "1e999") + LINE), None),
    "a value of a list": (content(LINE.replace("1.5", "[1.5]") + LINE), None),
    "a split of a number": (content(LINE.replace('"train"', "3") + LINE), None),
    "a line of 10^8 letters": (content(LINE.replace("train", "t" * 10**8) + LINE), None),
    "lines of lists": (content("[]\n" * 10), None),
}


def sealed(**changes):
    """Changes a manifest, and makes its SHA-256 fit."""

    def damage(file):
        document = json.loads(file.read_text())
        manifest = document["manifest"] | changes if isinstance(document["manifest"], dict) else changes
        file.write_text(json.dumps({"manifest": manifest, "sha256": hashing.json_digest(manifest)}))

    return damage


def forged(manifest):
    return content(json.dumps({"manifest": manifest, "sha256": hashing.json_digest(manifest)}))


LEAF = {"shape": [2, 3], "dtype": "float32", "sha256": "0" * 64}
# A damaged checkpoint gives way to the one before it, and is named when all are.
MANIFEST = {
    **{name: (damage, "damaged") for name, damage in ANY.items()},
    "null": (content(b"null"), "damaged"),
    "a forged null": (forged(None), "damaged"),
    "a forged list": (forged([]), "damaged"),
    "a forged number": (forged(7), "damaged"),
    "leaves null": (sealed(leaves=None), "damaged"),
    "leaves of nulls": (sealed(leaves={"['a']": None, "['b']": None}), "damaged"),
    "leaves of other keys": (sealed(leaves={"['a']": {"size": 3}}), "damaged"),
    "leaves of a shape of words": (sealed(leaves={"['a']": LEAF | {"shape": ["2"]}}), "damaged"),
    "leaves of a shape of -2": (sealed(leaves={"['a']": LEAF | {"shape": [-2, 3]}}), "damaged"),
    "leaves of an unknown dtype": (sealed(leaves={"['a']": LEAF | {"dtype": "float7"}}), "another model"),
    "leaves of 10^12": (sealed(leaves={"['a']": LEAF | {"shape": [10**12]}}), "another model"),
    "leaves of other paths": (sealed(leaves={"../../x": LEAF}), "another model"),
    "no leaves": (sealed(leaves={}), "another model"),
    "a step of another": (sealed(step=9), "damaged"),
    "a step in words": (sealed(step=ARABIC), "damaged"),
    "a step of true": (sealed(step=True), "damaged"),
    "a metric in words": (sealed(metric="best"), "damaged"),
    "a metric of a list": (sealed(metric=[1.0]), "damaged"),
    "a metric of infinity": (sealed(metric=float("inf")), "damaged"),
    "a metric of 10^400": (sealed(metric=10**400), "damaged"),
    "a fingerprint of a number": (sealed(fingerprint=3), "damaged"),
    "a fingerprint of numbers": (sealed(fingerprint={"data": 3}), "damaged"),
    "a run of a number": (sealed(run=3), "damaged"),
    "another run": (sealed(run="ab" * 16), "another run"),
}


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return content(struct.pack("<Q", len(text)) + text + data)


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


WEIGHTS = {
    **{name: (damage, "w") for name, damage in ANY.items()},
    "a header of 2^60 bytes": (content(struct.pack("<Q", 2**60)), "w"),
    "a header that is nested": (safetensors(NESTED), "w"),
    "a header of null": (safetensors(b"null"), "w"),
    "an unknown dtype": (safetensors(tensor("F7"), bytes(4)), "w"),
    "a dtype of eight bits": (safetensors(tensor("F8_E4M3", (4,)), bytes(4)), "w"),
    "a dtype of four bits": (safetensors(tensor("F4", (8,)), bytes(4)), "w"),
    "a dtype of half bits": (safetensors(tensor("BF16", (2,)), bytes(4)), "w"),
    "a shape of 10^12": (safetensors(tensor(shape=(10**12,)), bytes(4)), "w"),
    "a shape of -1": (safetensors(tensor(shape=(-1,)), bytes(4)), "w"),
    "offsets outside": (safetensors(tensor(offsets=(0, 400)), bytes(4)), "w"),
    "offsets that overlap": (safetensors(tensor() | {"b": tensor()["a"]}, bytes(4)), "w"),
    "no digest": (lambda file: save_file({"a": np.zeros(3, np.float32)}, file), "w"),
    "a pickle": (content(b"cos\nsystem\n(S'touch ran'\ntR."), "w"),
    "other tensors": (lambda file: features.write_weights(file, {"a.b": np.zeros(3), "a": np.zeros(2)}, {}), "w"),
    "tensors of other shapes": (lambda file: features.write_weights(file, {"conv.kernel": np.zeros(3)}, {}), "w"),
    "no tensors": (lambda file: features.write_weights(file, {}, {}), "w"),
}


def open_config(root):
    reopen(root, config_type=configs.VAEConfig, with_data=False)
    resume.check_folder(Folder(root), vae.CONFIG)


def restore(root):
    for choose in ("restore_latest", "restore_best"):
        with Checkpointer(root / "checkpoints", run="", read_only=True) as checkpointer:
            assert getattr(checkpointer, choose)(STATE).step == 1


def restore_manifest(root):
    """The newest checkpoint is hostile, the other one is good."""
    with Checkpointer(root / "checkpoints", run="", read_only=True) as checkpointer, pytest.raises(UserError) as caught:
        checkpointer.restore_step(STATE, 2)
    if "another" not in str(caught.value):
        restore(root)
    raise caught.value


def ended(act) -> int | None:
    """The exit code of a command that only does this; None stands for a traceback."""
    try:
        act()
    except (UserError, OSError) as error:
        return errors.report(error)
    return 0


READERS = {
    "config.json": (CONFIG, open_config),
    "versions.json": (VERSIONS, lambda root: record_versions(root / "versions.json", {})),
    "results.json": (
        RESULTS,
        lambda root: measure.write_results(types.SimpleNamespace(folder=Folder(root)), [RECORD]),
    ),
    "metrics.jsonl": (METRICS, lambda root: metrics.MetricsLog(root / "metrics.jsonl", step=10**6).close()),
    "checkpoints/2/manifest/metadata": (MANIFEST, restore_manifest),
    "w": (WEIGHTS, lambda root: features.load("inception", root / "w")),
}
TABLE = {(file, name): row for file, (table, _) in READERS.items() for name, row in table.items()}


@pytest.mark.parametrize(("file", "name"), TABLE, ids=[": ".join(key) for key in TABLE])
@pytest.mark.timeout(60)
def test_a_hostile_file_is_read_or_refused_by_name(file, name, good, tmp_path, monkeypatch, capfd):
    damage, named = TABLE[file, name]
    root = pathlib.Path(shutil.copytree(good, tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    damage(root / file)
    code = ended(lambda: READERS[file][1](root))
    shown = capfd.readouterr().err
    assert code == (0 if named is None else 2), shown
    if isinstance(named, str):
        assert named in shown
    assert len(shown.splitlines()) <= 3
    assert all(len(line) < 700 and line.isprintable() for line in shown.splitlines())
    assert not (tmp_path / "ran").exists()


def test_the_table_is_long():
    """With `tests/data/test_hostile_data.py`, all that others may give: at least 150 kinds."""
    print(f"{len(TABLE)} hostile files of a run")
    assert len(TABLE) >= 150


@pytest.mark.parametrize("name", [ARABIC, "\u0e53", "007", "9" * 200, "-1", "1e3", " 2", "2 "])
def test_a_folder_that_is_no_step_is_no_checkpoint(name, good, tmp_path):
    root = pathlib.Path(shutil.copytree(good, tmp_path / "run"))
    shutil.copytree(root / "checkpoints" / "2", root / "checkpoints" / name)
    with Checkpointer(root / "checkpoints", read_only=True) as checkpointer:
        assert set(checkpointer.steps()) - {int("9" * 200)} == {1, 2}
        assert checkpointer.restore_latest(STATE).step == 2


def test_an_array_that_no_memory_holds_is_damage(good, tmp_path, caplog):
    """The manifest describes the array as it should be; the array's own file claims 10^15 elements."""
    root = pathlib.Path(shutil.copytree(good, tmp_path / "run"))
    shutil.rmtree(root / "checkpoints" / "2")
    with Checkpointer(root / "checkpoints") as checkpointer:
        checkpointer.save(2, STATE | {"a": jnp.zeros((4, 3))}, metric=9.0)
    manifest = root / "checkpoints" / "2" / "manifest" / "metadata"
    document = json.loads(manifest.read_text())
    (leaf,) = (leaf for path, leaf in document["manifest"]["leaves"].items() if "'a'" in path)
    leaf["shape"] = [2, 3]
    document["sha256"] = hashing.json_digest(document["manifest"])
    manifest.write_text(json.dumps(document))
    with Checkpointer(root / "checkpoints", read_only=True) as checkpointer:
        assert checkpointer.restore_latest(STATE).step == 1
    assert "has the shape [4, 3], not [2, 3]" in caplog.text
