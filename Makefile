# The commands a person needs. Everything installs what it lacks and is quick the second time.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
UV     ?= .venv/bin/uv
BIN    := .venv/bin
CLUSTER := $(PYTHON) -m tests.cluster

help:           ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

venv: .venv/.ready   ## .venv with the `backstay` command and the development tools
.venv/.ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends python3-venv; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(UV) || $(BIN)/python -m pip install -q uv
	@VIRTUAL_ENV=.venv $(UV) pip sync -q requirements-dev.lock
	@VIRTUAL_ENV=.venv $(UV) pip install -q --no-deps -e .
	@touch $@

demo: venv      ## the main job on real input: back a shop up, destroy it, bring it back
	@$(BIN)/python -m tests.demo

check: venv     ## format, lint, types, layers and unit tests, in seconds
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@layers=$$($(BIN)/lint-imports) || { echo "$$layers"; exit 1; }
	@$(BIN)/pytest -q -m "not exhaustive" tests/unit

format: venv    ## rewrite the sources in the project's format
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

test: check     ## every test: units, the repository against restic, and end to end on a real cluster
	@tests/run

bench: venv     ## measure the engine against restic
	@$(BIN)/python -m tests.bench.engine

docs: venv      ## the documentation as a site in site/
	@$(BIN)/mkdocs build -q --strict

cluster:        ## a one-node Kubernetes with CSI and S3
	@$(CLUSTER) up

cluster-down:   ## stop it and remove every trace
	@$(CLUSTER) down

image:          ## Backstay's container image as a tar file, built without Docker
	@$(CLUSTER) image backstay

lock: venv      ## resolve the dependencies anew into the hashed lock files
	@$(UV) pip compile -q --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@$(UV) pip compile -q --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" pyproject.toml --group dev -o requirements-dev.lock

clean:          ## remove what was built in this folder (caches outside it stay)
	@rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.PHONY: help venv demo check format test bench docs cluster cluster-down image lock clean
