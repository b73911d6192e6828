# `make demo` and `make test` need only make and Python >= 3.11; each sets up .venv by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= data/demo

.PHONY: demo test test-all test-newest mutants lint docs bench clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/saccade demo --out $(DEMO)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m ""

# The part that needs no torch, on the newest Python of this machine and the newest of everything else.
test-newest: $(VENV)/bin/python
	$(BIN)/python .ci/newest.py

# Spoil the code in one place after another: the tests must notice each time. Minutes.
mutants: $(VENV)/.installed-dev
	$(BIN)/python tests/mutants.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/build_api.py

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/demo.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(wildcard native/*) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(wildcard native/*) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
