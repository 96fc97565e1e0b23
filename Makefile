PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test setup

quickstart: $(VENV)/installed      ## train, evaluate and sample a small model in five minutes
	$(BIN)/patchpad quickstart

test: $(VENV)/installed            ## style, types and the default tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/python -m pytest -m "not slow and not unchecked" -n auto --dist loadfile
	JAXTYPING_DISABLE=1 $(BIN)/python -m pytest -m "(property or compile or unchecked) and not slow" -n auto --dist load

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
