PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint format bench tables check-results clean

help: ## list what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

install: $(READY) ## make .venv with gradbench in it (PYTHON=python3.12 chooses the Python)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("gradbench needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": choose another with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv && $(BIN)/python -m pip install -c constraints.txt -e '.[test]'
	@touch $@

demo: install ## train, challenge, detect and measure on embedded images, in about a minute
	$(BIN)/gradbench run experiment=quickstart

test: install ## run all tests, on all cores
	$(PYTEST)

test-fast: install ## run the tests of the inner loop: those that take no two seconds
	$(PYTEST) -m "not slow"

lint: install ## check style, docstrings and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: install ## put the code into its format
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: install ## time and memory of the gradient engine beside others, written to results/bench
	$(BIN)/python scripts/benchmarks/engine.py

tables: install ## the papers' tables from finished runs, written to outputs/tables
	$(BIN)/gradbench tables --all out=outputs/tables

check-results: install ## compare every number in README.md and results/ with the rows beside it
	$(BIN)/python scripts/check_results.py
	$(BIN)/python scripts/findings.py --check

clean: ## remove .venv and caches; outputs/ and data/ stay
	rm -rf .venv .pytest_cache .ruff_cache build dist
	find gradbench tests scripts -name __pycache__ -prune -exec rm -rf {} +
