"""Too little memory, of the machine or of a device: a line or two that say what to do."""

import errno
import os
import re

import jax
import jax.numpy as jnp
import pytest

from experiments import vae
from gm_jax import errors
from gm_jax.runner import cli


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
    assert errors.report(error) == 2
    assert capsys.readouterr().err == "error: there is not enough memory: free some, or raise the limit (ulimit -v).\n"
    assert errors.report(ImportError("no module named x")) is None


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("train", ["--train.batch-size", "--optimizer.accumulate-steps", "--network.remat", "--remat", "plan"]),
        ("evaluate", ["--batch-size"]),
        ("sample", ["--num"]),
        ("plan", []),
    ],
)
def test_an_array_that_does_not_fit_a_device_is_reported_with_what_to_do(verb, flags, capsys, monkeypatch):
    def runs(*_):
        jax.jit(lambda: jnp.zeros(2**50) + 1.0)()

    monkeypatch.setattr(getattr(cli, verb), f"{verb}_run", runs)
    with pytest.raises(SystemExit) as ended:
        cli.main(vae.CONFIG, [verb], module=vae)
    assert ended.value.code == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("error: the device has too little memory: Out of memory")
    assert re.findall(r"--[\w.-]*\w|plan\b(?=\sprints)", " ".join(rest)) == flags


def test_what_jax_did_not_say_about_a_device_keeps_its_traceback(capsys):
    assert errors.report(jax.errors.JaxRuntimeError("INVALID_ARGUMENT: x")) is None
    assert errors.report(RuntimeError("gRPC: RESOURCE_EXHAUSTED: a quota")) is None
    assert capsys.readouterr().err == ""
    assert errors.report(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")) == 2
    assert capsys.readouterr().err == "error: the device has too little memory: x\n"
    text = "INTERNAL: Error dispatching computation: Out of memory allocating 262144000000000 bytes.\nmore"
    assert errors.report(jax.errors.JaxRuntimeError(text)) == 2
    assert capsys.readouterr().err == (
        "error: the device has too little memory: Out of memory allocating 262144000000000 bytes.\n"
    )
