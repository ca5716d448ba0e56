# Everything Accord needs, from a Python >= 3.11 and make. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup lock lint format test run down bench compose-test schemas clean

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.setup-stamp
MEMBERS := shared services/intake services/qualification services/sla-monitor services/metrics deploy/local
MEMBER_FILES := $(addsuffix /pyproject.toml,$(MEMBERS))
# uv from PATH, else the one that setup puts into the environment.
UV = $$(command -v uv || echo $(VENV)/bin/uv)
PYTEST_ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with everything, pinned by hash

$(PYTHON):
	@.ci/make-venv $(VENV)

$(STAMP): requirements-dev.lock $(MEMBER_FILES) | $(PYTHON)
	@command -v uv >/dev/null || test -x $(VENV)/bin/uv || $(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	@$(UV) pip sync --quiet --python $(PYTHON) --require-hashes requirements-dev.lock
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@touch $@

lock: setup ## resolve anew and write every lock file
	@.ci/lock "$(UV)"

lint: setup ## ruff, format, mypy and the direction of imports
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: setup ## format and fix what can be fixed
	@$(VENV)/bin/ruff check --fix --quiet . || true
	@$(VENV)/bin/ruff format .

test: setup ## all tests with real PostgreSQL and Kafka (PYTEST_ARGS="…" for less)
	@$(PYTHON) -m pytest -n 2 -m "not bench" $(PYTEST_ARGS)

run: setup ## start everything and keep it running; a second run finds its data
	@$(VENV)/bin/accord up

down: setup ## stop what `make run` started
	@$(VENV)/bin/accord down

clean: ## remove the environment and caches, never the data under .accord/
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
