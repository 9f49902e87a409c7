# Everything starts here: `make help`. The virtual environment is made on first use.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The tests start hundreds of processes: without files of bytecode, each of them compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
ARGS ?=

.PHONY: help demo test check extras pins matrix bench guarantees soak fuzz docs screenshots flask fastapi django lint \
    sync clean static check-twins check-picture check-board check-lint check-format check-types

help: ## show this list
	@sed -n 's/^\([a-z ]*\):.*## /  make \1\t/p' Makefile
	@echo '  ARGS="..." is passed on:  make demo ARGS="--help",  make test ARGS="-k gate -x"'

demo: $(VENV)/.demo ## play a whole flash sale
	@$(BIN)/flashsale demo $(ARGS)

test: $(VENV)/.dev ## everything CI runs: generated code, lint, types, tests
	@$(MAKE) --no-print-directory --jobs --output-sync=target static
	@$(BIN)/python -m pytest -n logical $(ARGS)

check: $(VENV)/.dev ## generated code, lint, types and the core tests, in under a minute
	@$(MAKE) --no-print-directory --jobs --output-sync=target static
	@$(BIN)/python -m pytest -n logical -q --quick tests/unit tests/core $(ARGS)

static: check-twins check-picture check-board check-lint check-format check-types
check-twins:
	@$(BIN)/python tools/unasync.py --check
check-picture:
	@$(BIN)/python tools/rooms.py --check
check-board:
	@$(BIN)/python tools/board.py --check
check-lint:
	@$(BIN)/ruff check --quiet .
check-format:
	@$(BIN)/ruff format --check --quiet .
check-types:
	@$(BIN)/mypy

extras: $(VENV)/.dev ## install each extra alone, into an empty environment, and use it once
	@$(BIN)/python tools/extras.py $(ARGS)

pins: ## resolve anew what make installs; writes constraints.txt
	@$(PYTHON) tools/pins.py

matrix: $(VENV)/.dev ## test every Python, redis-py, server and database that can be had; writes docs/matrix.md
	@$(BIN)/python tools/matrix.py $(ARGS)

bench: $(VENV)/.bench ## measure beside the obvious code; writes docs/benchmarks.md
	@$(BIN)/python -c 'import arq' 2>/dev/null || $(PIP) --quiet --no-deps arq
	@$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/.dev $(VENV)/.bench ## serve for 20 minutes while things break; writes docs/soak.md
	@$(BIN)/python -m tests.chaos.soak $(ARGS)

fuzz: $(VENV)/.dev ## throw bytes at parsers and scripts, guided by coverage
	@$(BIN)/python -m tests.chaos.fuzz $(ARGS)

docs: $(VENV)/.dev ## build the documentation's site into build/docs
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs $(ARGS)
	@echo "build/docs/index.html"

screenshots: $(VENV)/.dev ## photograph a shop, and what its operator sees; writes docs/images
	@$(BIN)/python -m tests.browser.screenshots

flask fastapi django: $(VENV)/.examples ## open a small shop in this framework
	@$(BIN)/python -m examples $@ $(ARGS)

guarantees: $(VENV)/.dev ## play every fault of the catalogue; writes docs/guarantees.md
	@$(BIN)/python -m tests.chaos.faults $(ARGS)

lint: $(VENV)/.dev ## fix and format what can be fixed, then check types
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/mypy

sync: $(VENV)/.dev ## write the sync modules anew from src/flashsale/aio, and Grafana's board
	@$(BIN)/python tools/unasync.py
	@$(BIN)/python tools/rooms.py
	@$(BIN)/python tools/board.py

clean: ## remove the virtual environment and all caches
	@rm -rf $(VENV) .matrix build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests tools bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# .venv/.demo and .venv/.dev: the extra of that name is installed, as pyproject.toml and constraints.txt now say. The
# build is not isolated: pip would fetch the newest hatchling for it.
$(VENV)/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo 'flashsale needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@echo "Setting up $(VENV) for '$*' with $$($(PYTHON) --version) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --quiet hatchling editables
	@$(PIP) --no-build-isolation -e '.[$*]' | sed -n 's/^Collecting /  + /p'
	@touch $@
