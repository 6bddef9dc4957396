# altprop: everything sets itself up in .venv, once, and again when its pins change.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup compare test recipes ablation bench clean

# The Python that makes .venv: the first of these that is new enough. `make PYTHON=/path/to/python3` picks another.
PYTHON ?= python3 python3.11 python3.12 python3.13 python3.14
VENV := .venv
STAMP := $(VENV)/.installed

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install altprop with its tools (every other target does it by itself)

$(STAMP): pyproject.toml constraints.txt
	@if [ ! -x $(VENV)/bin/pip ]; then \
		found=; \
		for python in $(PYTHON); do \
			if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "altprop needs Python 3.11 or newer, and none was found as: $(PYTHON)." >&2; \
			echo "Install one, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$("$$found" --version)"; \
		"$$found" -m venv --clear $(VENV) || { \
			rm -rf $(VENV); \
			echo "$$found cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2; \
			exit 1; \
		}; \
	fi
	@echo "Installing altprop into $(VENV) (the first time takes minutes: PyTorch is large)"
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

compare: $(STAMP) ## compare all rules on the built-in digits, and say where the page is
	@$(VENV)/bin/altprop compare

# One thread a worker: two workers on two cores, and sums that come out the same everywhere.
test: export OMP_NUM_THREADS := 1
test: $(STAMP) ## all checks and tests
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -n 2

recipes: $(STAMP) ## the numbers of docs/results, from the beginning (hours; python -m altprop.bench.recipes --only NAME)
	$(VENV)/bin/python -m altprop.bench.recipes

ablation: $(STAMP) ## forward-forward with one thing changed at a time, for docs/results (about an hour)
	$(VENV)/bin/python -m altprop.bench.ablation

bench: $(STAMP) ## step time, operations and floor of each rule against backprop
	$(VENV)/bin/python -m altprop.bench.speed

clean: ## remove what make made (.venv, caches); stores and reports stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
