# Everything that must be green before a commit goes in. PYTHON: the environment to use, e.g. make check PYTHON=.venv/bin/python
PYTHON ?= python

.PHONY: check lint types test tables
check: lint types test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest -m "not gpu"

tables:  ## fill the README's tables from benchmarks/results
	$(PYTHON) -m benchmarks.tables
