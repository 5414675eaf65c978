# make helper   compile the helper into the source tree, for development
# make test     make .venv, install sampan with its dev extra, and run every check
# make test-faults  power cuts at 500 moments, and what else is too long for `make test` (as root, less than an hour);
#                   SAMPLE=40 kills oftener than at 12 calls of each process, SAMPLE=0 at every one
# make test-vm  try it in a virtual machine with cgroup v2 and systemd (as root; see docs/testing.md)
# make demo     the whole tour: make .venv, install sampan, run examples/demo.py with it
# make bench    every published figure
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: helper test test-faults test-vm lint demo bench clean

helper: sampan/_helper/sampan-helper

sampan/_helper/sampan-helper: $(wildcard helper/*.c helper/*.h) helper/make.py
	$(PYTHON) helper/make.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py bin/sampan | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

test: $(VENV)/.installed helper lint
	$(BIN)/python -m pytest

test-faults: $(VENV)/.installed helper
	SAMPAN_FAULTS=500 $(BIN)/python -m pytest tests/faults $(if $(SAMPLE),--sample $(SAMPLE))

test-vm:
	$(PYTHON) tests/vm/run.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --line-length 120 .
	$(BIN)/mypy --strict

# A plain install of what is in the tree now, unless `make test` has put an editable one there.
SOURCES := $(shell find sampan helper bin -name '*.py' -o -name '*.[ch]') setup.py pyproject.toml bin/sampan

$(VENV)/.packaged: $(SOURCES) | $(BIN)/python
	test -e $(VENV)/.installed || $(BIN)/python -m pip install -q .
	touch $@

demo: $(VENV)/.packaged $(if $(wildcard $(VENV)/.installed),helper)
	$(BIN)/python examples/demo.py

bench: helper $(VENV)/.installed
	$(BIN)/python -m bench

clean:
	rm -rf build dist sampan.egg-info sampan/_helper .demo
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf
