# Every target sets up .venv by itself; nothing else need be installed but Python 3.11 (and Debian's packages, where allowed).
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
export NO_ALBUMENTATIONS_UPDATE := 1
export PYTHONHASHSEED := 0

.PHONY: demo test slow check docs bench format clean setup

demo: $(READY)
	$(BIN)/boxwright demo --root out/demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder

slow: $(READY)
	$(BIN)/python -m pytest -m "slow"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: $(READY)
	$(BIN)/python -m pytest --doctest-modules collect annotate train boxwright.py tests/docs -q

bench: $(READY)
	$(BIN)/python tests/benchmarks/run.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(READY)

$(READY): pyproject.toml constraints.txt .ci/setup
	PYTHON="$(PYTHON)" .ci/setup
	touch $(READY)

clean:
	rm -rf .venv out .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
