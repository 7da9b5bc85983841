# `make demo` and `make test` are all a fresh machine with Python ≥ 3.11 needs; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# One line that changes, of which package pip is at, instead of hundreds; its errors go past this, and its failure is kept.
SHOW_PIP := /^ *(Collecting|Obtaining|Processing) / { ++n; if (tty) { printf "\r\033[K    %d %s", n, $$2; fflush() } } \
	/^Installing collected/ { printf "%s    installing what %d packages need\n", tty ? "\r\033[K" : "", n; fflush() } \
	/^pip-failed$$/ { bad = 1 } \
	END { if (bad) print ""; exit bad }

.PHONY: install demo test format lint docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"cpfnet needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")'
	@echo "1/3 an environment of its own: $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2/3 packages: some 130, PyTorch the largest; minutes, most of them for downloads"
	@test -t 1 && tty=1; { $(BIN)/python -m pip install --no-color --disable-pip-version-check --constraint constraints.txt --editable ".[train,demo,dev,dicom,docs]" || echo pip-failed; } | awk -v tty=$$tty '$(SHOW_PIP)'
	@touch $@
	@echo "3/3 done: $(BIN)/cpfnet --help, or make demo"

demo: install
	$(BIN)/cpfnet demo --overwrite

test: install
	$(BIN)/python -m pytest --numprocesses auto --dist loadscope $(ARGS)

format: install
	$(BIN)/ruff format src tests benchmarks docs/conf.py
	$(BIN)/ruff check --fix src tests benchmarks docs/conf.py

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
