# All targets need only a clone and python3 with venv (Debian 12: apt-get install make python3 python3-venv).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Exists, and is newer than its dependencies, if the environment matches requirements.txt.
READY  := $(VENV)/.ready

# The compiler of TPUs, for the tests of the verb `plan`. It is kept apart, because jax prints warnings if libtpu is
# installed and there is no TPU. If there is no wheel for this machine, those tests are skipped.
TPU    := $(VENV)/tpu

# Most of a test's time is XLA compiling, on one core, so that there are two workers. Of the fast tests each takes whole
# files, whose tests share what they compile; of the slow proofs, some of which take minutes, one that is done takes
# over what the other has not begun. The tests compile some ten thousand small programs, most of them once, so that a
# cache of programs would save little. They take code that LLVM has not optimised, from the older emitters of XLA, which
# make no MLIR context for each program: together they compile in a third of the time. Proofs that train long take what
# users run. GM_JAX_TEST_PLATFORM=cuda runs the tests on that platform.
FAST   := -n 2 --dist loadfile -m "not slow"
SLOW   := -n 2 --dist worksteal -m slow
COMPILE := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
QUICK  := $(if $(GM_JAX_TEST_PLATFORM),,XLA_FLAGS="$(COMPILE)")

# What builds the site: apart too, because neither tests nor experiments need it.
DOCS   := $(VENV)/docs

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lecture lint format docs wheel clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):[^#]*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY)  ## make .venv and install the tested set into it (every target below does this first)

demo: $(READY)  ## train a VAE on the digits, evaluate and draw it: runs/vae (run it again to resume)
	$(BIN)/python -m experiments.vae

test: $(READY)  ## the tests, all but the slow proofs
	$(QUICK) $(BIN)/python -m pytest $(FAST)

test-slow: $(READY) $(TPU)  ## the slow proofs: pods of processes, kills, plans for TPUs (CI runs both)
	$(QUICK) PYTHONPATH=$(TPU) $(BIN)/python -m pytest $(SLOW)

lecture: $(READY)  ## run every page of docs/lecture and check its numbers, changing nothing
	$(QUICK) $(BIN)/python -m tools.lecture --check

# pyright runs on the machine's node, or fetches one if there is none.
lint: $(READY)  ## ruff (rules and format) and pyright (types), changing nothing
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pyright

format: $(READY)  ## ruff: fix what it can, and format
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(DOCS)  ## the documentation site: build/site/index.html (strict, without a network)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	$(DOCS)/bin/python -m tools.site.check build/site

wheel:  ## build a wheel, install it in a clean environment of PYTHON, and train there from an empty folder
	tools/try_wheel.sh $(PYTHON)

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment with a working pip is kept; an incomplete one is made again from scratch.
# The package itself goes in last, without its dependencies: the pins are the tested set.
$(READY): requirements.txt setup.cfg pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	        || { echo "gm_jax needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; } >&2; \
	    echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .
	@touch $@

$(TPU): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target $@ libtpu==0.0.42.1 || mkdir -p $@
	@touch $@

$(DOCS): docs/requirements.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --disable-pip-version-check -r docs/requirements.txt
	@touch $@
