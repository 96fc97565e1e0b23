# `make help` lists what can be made. Everything runs in a virtual environment of its own, .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Another torch than that of constraints.txt, in a new .venv: make test TORCH="==2.11.*"
TORCH ?=
WORKERS ?= auto

# With the checks of shapes, and without. Properties are tried without; `make test-all` tries them with the checks too.
CHECKED := not unchecked and not property
UNCHECKED := property or compile or unchecked
# Modules are compiled once, and not in each of the many processes that tests start.
export PYTHONDONTWRITEBYTECODE :=

PRETENDED := (pretended or gpu) and not slow
FOR_GPUS = $(shell grep -rl --include='test_*.py' '^@pytest.mark.gpu' tests)

.PHONY: help setup quickstart test test-cuda test-lm-eval test-all lint format docs bench bench-record

help:                              ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(VENV)/installed           ## the virtual environment, with the package and the development tools

quickstart: $(VENV)/installed      ## train, evaluate and sample a small model in five minutes
	$(BIN)/patchpad quickstart

test: lint                         ## style, types, imports and the default tests: what a change must pass
	$(BIN)/python -m pytest -m "($(CHECKED)) and not slow" -n $(WORKERS) --dist loadfile
	JAXTYPING_DISABLE=1 $(BIN)/python -m pytest -m "($(UNCHECKED)) and not slow" -n $(WORKERS) --dist load
	$(MAKE) --no-print-directory test-cuda

test-cuda: $(VENV)/installed       ## the guards of the CUDA paths, and the tests for GPUs, on a pretended device
	JAXTYPING_DISABLE=1 PYTHONPATH=tests/cuda $(BIN)/python -m pytest -p pretended_plugin -m "$(PRETENDED)" -n $(WORKERS) --dist load tests/cuda $(FOR_GPUS)

test-lm-eval: $(VENV)/lm-eval      ## the tests of lm_eval's models, which need half a gigabyte of further libraries
	$(BIN)/python -m pytest -n $(WORKERS) tests/tasks/test_lm_eval_adapter.py tests/tasks/test_lm_eval_prompts.py tests/cli/test_lm_eval.py tests/hub/test_lm_eval.py tests/serving/test_lm_eval_server.py -m "not slow"

test-all: lint $(VENV)/all-extras  ## all tests, the slow ones too, with every extra installed
	$(BIN)/python -m pytest -m "not unchecked" -n $(WORKERS) --dist loadfile
	JAXTYPING_DISABLE=1 EXAMPLES=20 $(BIN)/python -m pytest -m "$(UNCHECKED)" -n $(WORKERS) --dist load
	$(MAKE) --no-print-directory test-cuda PRETENDED="pretended or gpu"

lint: $(VENV)/installed            ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports --no-logo

format: $(VENV)/installed          ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed           ## the five main figures beside the last ones on record; AGAINST=<commit or folder>: beside that, in pairs
	$(BIN)/python benchmarks/bench.py $(if $(AGAINST),--against $(AGAINST))

bench-record: $(VENV)/installed    ## the same, written to the record: on a machine that does nothing else
	$(BIN)/python benchmarks/bench.py --update

docs: $(VENV)/docs-installed       ## build the documentation site in build/docs; a dead link or an orphan is an error
	$(BIN)/python recipes/site_pages.py
	$(BIN)/zensical build --clean --strict
	$(BIN)/python recipes/check_site.py
	$(BIN)/python recipes/look_at_site.py

CONSTRAINTS := $(VENV)/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	sed -e '$(if $(TORCH),s/^torch==.*/torch$(TORCH)/)' constraints.txt > $(CONSTRAINTS)
	$(INSTALL) ".[dev]"
	touch $@

$(VENV)/all-extras: $(VENV)/installed
	$(INSTALL) ".[dev,bpe,bench,eval,plot,track]" "lm-eval[api]"
	touch $@

$(VENV)/lm-eval: $(VENV)/installed
	$(INSTALL) ".[dev,eval]" "lm-eval[api]"
	touch $@

$(VENV)/docs-installed: $(VENV)/installed
	$(INSTALL) ".[dev,docs]"
	touch $@

$(VENV)/lm-eval-and-docs: $(VENV)/installed  # what the two above install, at once
	$(INSTALL) ".[dev,eval,docs]" "lm-eval[api]"
	touch $(VENV)/lm-eval $(VENV)/docs-installed $@
