# Everything Accord needs, from a Python >= 3.11 and make. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup lock lint format test coverage chaos simulate bench run demo down compose-env compose-up compose-down compose-test docs schemas reference clean

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.setup-stamp
COVERAGE := $(VENV)/bin/coverage
MEMBERS := shared services/intake services/qualification services/sla-monitor services/metrics deploy/local
MEMBER_FILES := $(addsuffix /pyproject.toml,$(MEMBERS))
# uv from PATH, else the one that setup puts into the environment.
UV = $$(command -v uv || echo $(VENV)/bin/uv)
# What people write; docs/api is generated.
MARKDOWN := $(wildcard *.md docs/*.md docs/adr/*.md docs/guides/*.md docs/guides/sources/*.md docs/runbooks/*.md)
PYTEST_ARGS ?=
BENCH ?=
SEED ?=
SEEDS ?= $(if $(SEED),1,2000)
JOBS ?= 2
FAULT ?= none
BASE ?=
BASE_ROUNDS ?= 3
# Behind a proxy with a certificate of its own, only the system knows whom to trust; a bare machine has only uv's list.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),true,false)
# Tests start hundreds of processes. Where bytecode may not be written, each of them would compile all that it imports again.
export PYTHONDONTWRITEBYTECODE :=
SERVICE_MODULES := intake.main qualification.main sla_monitor.main metrics.main
DATA_DIR := .accord
COMPOSE := docker compose --env-file $(DATA_DIR)/compose.env

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with everything, pinned by hash

$(PYTHON):
	@.ci/make-venv $(VENV)

$(STAMP): requirements-dev.lock $(MEMBER_FILES) shared/accord/version.py | $(PYTHON)
	@command -v uv >/dev/null || test -x $(VENV)/bin/uv || $(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	@$(UV) pip sync --quiet --python $(PYTHON) --require-hashes requirements-dev.lock
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@touch $@

lock: setup ## resolve the dependencies and write every lock file
	@.ci/lock "$(UV)"

lint: setup ## ruff, format, mypy, import rules, schemas, HTTP reference, Markdown and spelling
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(PYTHON) -m accord.schemas_cli --check
	@$(PYTHON) -m accord.reference_cli --check docs/api $(SERVICE_MODULES)
	@$(VENV)/bin/mdformat --check $(MARKDOWN)
	@$(VENV)/bin/codespell

format: setup ## format code and Markdown, and fix what can be fixed
	@$(VENV)/bin/ruff check --fix --quiet . || true
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/mdformat $(MARKDOWN)

test: setup ## all tests with real PostgreSQL and Kafka (PYTEST_ARGS="…" for less); the ten slowest at the end
	@$(PYTHON) -m pytest -n 3 -m "not bench" --durations=10 $(PYTEST_ARGS)

coverage: setup ## branch coverage of the tests, processes that they start included (PYTEST_ARGS="…" for a part); a table, and pages in .coverage/html
	@rm -rf .coverage && mkdir .coverage
	@$(COVERAGE) run -m pytest -n 3 -m "not bench" $(PYTEST_ARGS); outcome=$$?; \
	$(COVERAGE) combine --quiet && $(COVERAGE) html --quiet && \
	for member in $(MEMBERS) '*'; do \
	  share=$$($(COVERAGE) report --include="$$member/*" --format=total) || continue; \
	  printf '%-24s %5s %%\n' "$${member/#\*/all}" "$$share"; \
	done; exit $$outcome

chaos: setup ## the long form of the tests that kill processes, fuzz and try many cases
	@ACCORD_TESTS=long $(PYTHON) -m pytest -n 2 -m "not bench" --timeout 900 --durations=10 $(PYTEST_ARGS)

bench: setup ## measure throughput and latency beside plain baselines; a table, and JSON in bench-results/ (BENCH="single relay" for some, BASE=COMMIT beside another commit)
	@$(PYTHON) -m tests.bench $(BENCH) $(if $(BASE),--base $(BASE) --rounds $(BASE_ROUNDS))

simulate: setup ## messaging in simulated time (SEEDS=… JOBS=… for more; SEED=… for one, step by step; FAULT=… to plant one)
	@$(PYTHON) -m tests.simulation --seeds $(SEEDS) --first $(or $(SEED),0) --jobs $(JOBS) --fault $(FAULT) \
	$(if $(filter 1,$(SEEDS)),--trace)

run: setup ## start everything and keep it running; a second run finds its data
	@$(VENV)/bin/accord up

demo: setup ## start everything, play half a year of leads, show the numbers, keep serving
	@$(VENV)/bin/accord demo

down: setup ## stop what `make run` started
	@$(VENV)/bin/accord down

compose-env: setup ## make the passwords and keys that docker-compose.yml needs
	@$(VENV)/bin/accord compose-env --data-dir $(DATA_DIR) >/dev/null

compose-up: compose-env ## build the images and start everything in containers
	@$(COMPOSE) up --build --detach --wait

compose-down: ## stop the containers, keep their data
	@$(COMPOSE) down

compose-test: compose-env ## system tests against containers of their own, removed afterwards
	@trap '$(COMPOSE) -p accord-test down --volumes --timeout 20' EXIT; \
	$(COMPOSE) -p accord-test up --build --detach --wait && \
	ACCORD_SYSTEM_URL_TEMPLATE='http://127.0.0.1:{port}' ACCORD_DATA_DIR=$(DATA_DIR) \
	$(PYTHON) -m pytest -m "system and not chaos" tests/system $(PYTEST_ARGS)

docs: setup ## build the documentation as a site in site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

schemas: setup ## write the JSON Schemas, examples and AsyncAPI document from the contracts
	@$(PYTHON) -m accord.schemas_cli

reference: setup ## write the reference of the HTTP interfaces in docs/api
	@$(PYTHON) -m accord.reference_cli docs/api $(SERVICE_MODULES)

clean: ## remove the environment and caches, never the data under .accord/
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
