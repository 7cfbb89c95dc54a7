# dnctl. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
TESTS := $(BIN)/python -m pytest
JOBS ?= 2
# Where `make demo` puts its data. Its cluster is one of its own, and ended with it.
DEMO := demo

.PHONY: help setup demo test test-long test-faults chaos test-fast check format bench docs lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Bytecode is compiled here, once: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process of a run
# would compile torch and Ray for itself, some 6 s of a core each.
setup: .venv/.complete  ## Make .venv with the pinned dependencies and dnctl itself

.venv/.complete: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dnctl needs Python 3.11 or newer; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(shell sed -n 's/^uv==//p' requirements.lock)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: setup  ## Train a small DenseNet on handwritten digits, from nothing to a table of results
	@set -e; export DNCTL_CLUSTER_DIR=$$(mktemp -d /tmp/demo.XXXX); unset RAY_ADDRESS DNCTL_CLUSTER; \
	trap '$(BIN)/dnctl cluster down; rm -r "$$DNCTL_CLUSTER_DIR"' EXIT; \
	$(BIN)/dnctl data demo $(DEMO)/digits; \
	$(BIN)/dnctl launch recipes/demo.yaml --set data.root=$(DEMO)/digits; \
	echo "To type the commands above, first: . .venv/bin/activate"

test: setup  ## Run what this machine can run in 20 minutes: side by side, but for what starts a Ray cluster
	$(TESTS) -m "not ray and not long" -n $(JOBS) --dist worksteal
	$(TESTS) -m "ray and not long and not faults"

test-long: setup  ## Run the tests that take minutes each: Slurm, other clusters, hosts that die
	$(TESTS) -m long

test-faults: setup  ## Strike runs with every fault at every moment, and record what came of it; takes long
	RECORD_FAULTS=1 $(TESTS) -m faults
	$(BIN)/python -m tests.multihost.record

chaos: setup  ## Random faults: make chaos SEED=1 [MINUTES=30] [HISTORY=7]
	$(if $(SEED),,$(error say which: make chaos SEED=1))
	RECORD_FAULTS=1 $(BIN)/python -m tests.multihost.chaos $(SEED) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(HISTORY),--history $(HISTORY))
	$(BIN)/python -m tests.multihost.record

test-fast: setup  ## Run the tests that take seconds
	$(TESTS) -m "not slow and not ray and not multihost and not gpu" -n $(JOBS)

check: setup  ## Lint, formatting, types and import rules; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## Run the benchmarks; each prints ratios against a peer measured in the same run
	for script in cli control input decode scale overhead estimate step rest_of_step curves; do $(BIN)/python benchmarks/$$script.py || exit; done

docs: setup  ## Write what is generated from the code
	$(BIN)/python -m orchestrator.recipe
	$(BIN)/python -m orchestrator.cli.reference

lock: setup  ## Pin what pyproject.toml asks for to the newest that fit together
	$(BIN)/uv pip compile --quiet --python-version 3.11 --extra cuda130 --extra demo --extra prepare --extra dev --no-header --no-annotate --output-file requirements.lock pyproject.toml

clean:  ## Remove what was made here: .venv, caches, the demo
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist $(DEMO)
