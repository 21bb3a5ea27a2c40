# Everything starts from a clean checkout with Python 3.11 or later and make.

PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
	done)
VENV := .venv
BIN := $(VENV)/bin
ADDRESS ?= 127.0.0.1:8000
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help demo demo-redis demo-database test test-slow test-all coverage test-wheel chaos lint format bench bench-redis bench-db bench-live bench-scale bench-plot bench-docs wheel locale clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# One environment for all; each group of dependencies is installed when first needed, and pip says
# what it does meanwhile.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed and was not found. Name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making a virtual environment in $(VENV), with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/.%: $(BIN)/python pyproject.toml
	@echo "Installing what $* needs into $(VENV). That takes about a minute, and is done once."
	@$(BIN)/python -m pip install --disable-pip-version-check --editable . --group $*
	@touch $@

demo: $(VENV)/.demo ## Serve the example chatbot on http://127.0.0.1:8000.
	@echo "The concierge is at http://$(ADDRESS) (Ctrl-C stops it)."
	$(BIN)/python manage.py runserver --noreload $(ADDRESS)

demo-redis: $(VENV)/.demo-redis ## Serve it with a Valkey that comes along.
	$(BIN)/python -m example_project.with_valkey $(ADDRESS)

demo-database: $(VENV)/.demo ## Serve it with a database, and the admin.
	$(BIN)/python -m example_project.with_database $(ADDRESS)

# Worksteal, because some tests take seconds, and stand next to each other.
test: $(VENV)/.test ## Run the tests, but for what takes long.
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

test-slow: $(VENV)/.test ## Run what takes long.
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow $(PYTEST_ARGS)

coverage: $(VENV)/.coverage ## Run the tests, and tell which lines and branches of the package none has run.
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist worksteal $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Interpreters that pyenv has installed count as present, whichever of them is switched on.
test-all: export PATH := $(subst $(eval) ,:,$(wildcard $(HOME)/.pyenv/versions/3.1*/bin)):$(PATH)
test-all: $(VENV)/.matrix ## Run them on each Python and Django that is supported and present.
	$(BIN)/python -m tox run -- $(PYTEST_ARGS)

# One after the other: they measure time.
chaos: $(VENV)/.test ## Kill, freeze, cut off and fill up real servers, and see what becomes of conversations.
	$(BIN)/python -m pytest -m '' tests/chaos $(PYTEST_ARGS)

lint: $(VENV)/.lint ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/unasync.py --check
	$(BIN)/mypy

format: $(VENV)/.lint ## Mend style where a tool can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/unasync.py

bench: $(VENV)/.test ## Measure, side by side with Django's sessions.
	$(BIN)/python -m benchmarks.bench $(BENCH_ARGS)

bench-redis: $(VENV)/.bench ## Measure a turn on Valkey beside what others pay for it.
	$(BIN)/python -W ignore -m benchmarks.bench_redis $(BENCH_ARGS)

bench-db: $(VENV)/.test ## Measure turns, purges, lists, exports and imports on PostgreSQL.
	$(BIN)/python -W ignore -m benchmarks.bench_db $(BENCH_ARGS)

bench-live: $(VENV)/.bench ## Measure requests on real servers, and thousands of websockets.
	$(BIN)/python -W ignore -m benchmarks.bench_live $(BENCH_ARGS)

bench-scale: $(VENV)/.bench ## Measure processes against one server, and what a million need.
	$(BIN)/python -W ignore -m benchmarks.bench_scale $(BENCH_ARGS)

bench-plot: $(VENV)/.bench ## Draw the cost over the length, from the JSON of bench-redis.
	$(BIN)/python -m benchmarks.bench_plot $(BENCH_ARGS)

bench-docs: $(VENV)/.bench ## Put what benchmarks wrote as JSON into docs/.
	$(BIN)/python -m benchmarks.into_docs $(BENCH_ARGS)

wheel: $(VENV)/.build ## Build the wheel and the source distribution into dist/.
	rm -rf dist
	$(BIN)/python -m build --quiet

test-wheel: wheel ## Look into the wheel, install it into an empty environment, use it.
	$(BIN)/python tests/check_wheel.py

locale: $(VENV)/.test ## Compile the translations.
	$(BIN)/pybabel compile --domain django --directory django_convstate/locale

clean: ## Remove everything that make has made.
	rm -rf $(VENV) .tox dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
