# Everything works from a bare checkout: .venv is made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUFF_PATHS := src tests $(wildcard benchmarks)

.PHONY: demo install test check format docs clean

# Build a small LLM end to end from the embedded corpus.
demo: $(VENV)/.runtime
	$(BIN)/groundup build

# Everything a developer needs.
install: $(VENV)/.complete

test: $(VENV)/.complete
	$(BIN)/python -m pytest -q -n 2

check: $(VENV)/.complete
	$(BIN)/ruff format --check $(RUFF_PATHS)
	$(BIN)/ruff check $(RUFF_PATHS)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.complete
	$(BIN)/ruff format $(RUFF_PATHS)
	$(BIN)/ruff check --fix $(RUFF_PATHS)

docs: $(VENV)/.complete
	$(BIN)/python -m groundup.recipe docs/recipe.md
	$(BIN)/python -m groundup.cli.architecture_docs docs/architectures.md

# The stamps are written last, so a broken installation is tried again; new pins install again.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "groundup needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.complete: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
