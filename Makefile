# `make demo` and `make test` are all a fresh machine with Python ≥ 3.11 needs; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"cpfnet needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,demo,dev,dicom,docs]"
	touch $@

demo: install
	$(BIN)/cpfnet demo --overwrite

test: install
	$(BIN)/python -m pytest --numprocesses auto --dist loadscope

lint: install
	$(BIN)/ruff format --check src tests benchmarks docs/conf.py
	$(BIN)/ruff check src tests benchmarks docs/conf.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: install
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
