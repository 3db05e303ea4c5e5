# Everything runs in an environment of its own, which the first command makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000

.PHONY: help demo serve test lint bench clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

demo: $(VENV)/example  ## show a session in a header at work, over real HTTP
	$(BIN)/python example_project/demo.py

serve: $(VENV)/example  ## the example server, left running for you to try (PORT=8000)
	$(BIN)/python example_project/demo.py --serve --port $(PORT)

test: $(VENV)/test  ## all tests, with a Valkey of their own
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/lint  ## ruff, mypy, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy django_header_sessions tests benchmarks example_project
	PYTHONPATH=. DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -W error -m django \
		makemigrations --check --dry-run

bench: $(VENV)/test  ## session machinery against Django's, and memory on Redis
	$(BIN)/python benchmarks/machinery.py
	$(BIN)/python benchmarks/memory.py

clean:  ## remove the environment
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[redis]" --group $*
	@touch $@
