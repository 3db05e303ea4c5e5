# Everything runs in an environment of its own, which the first command makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000

.PHONY: help demo serve test coverage matrix test-browser test-nginx schemathesis soak lint bench bench-client bench-million clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

demo: $(VENV)/example  ## show a session in a header at work, over real HTTP
	$(BIN)/python example_project/demo.py

serve: $(VENV)/example  ## the example server, left running for you to try (PORT=8000)
	$(BIN)/python example_project/demo.py --serve --port $(PORT)

test: $(VENV)/test  ## all tests, with a Valkey of their own
	$(BIN)/python -m pytest -n 4

coverage: $(VENV)/test  ## all of them, a browser's and a proxy's too, measured: takes twice as long
	$(BIN)/python -m pytest -n 4 -m "" --cov --cov-report=term-missing:skip-covered

matrix: $(VENV)/matrix  ## a smoke of the wheel on each Python and each Django that are found
	$(BIN)/python -m nox

test-browser: $(VENV)/test  ## what needs a browser: Debian's chromium and chromium-driver
	$(BIN)/python -m pytest -m browser

test-nginx: $(VENV)/test  ## what needs a proxy: Debian's nginx-light
	$(BIN)/python -m pytest -m nginx

schemathesis: $(VENV)/test  ## some thousand generated calls of the session resource, in a few minutes
	SCHEMATHESIS_EXAMPLES=300 $(BIN)/python -m pytest -s tests/rest_framework/test_schemathesis.py

soak: $(VENV)/test  ## faults under load, for some eight minutes, with a table at the end
	$(BIN)/python -m soak

lint: $(VENV)/lint  ## ruff, mypy, migrations, what may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy django_header_sessions tests benchmarks soak example_project noxfile.py
	PYTHONPATH=. DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -W error -m django \
		makemigrations --check --dry-run
	$(BIN)/python -m pytest -q tests/test_imports.py

bench: $(VENV)/bench  ## import time, machinery, memory, operations, policies and DRF: some minutes each
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/machinery.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/operations.py
	$(BIN)/python benchmarks/policies.py
	$(BIN)/python benchmarks/rest_framework.py

bench-client: $(VENV)/test  ## what pooling and a session save a client, with a plot
	$(BIN)/python -m benchmarks.client.run
	$(BIN)/python -m benchmarks.client.overhead

bench-million: $(VENV)/test  ## the monitor among a million sessions, each aim judged; some minutes
	$(BIN)/python benchmarks/million.py

clean:  ## remove the environments
	rm -rf $(VENV) .nox

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[redis]" --group $*
	@touch $@
