# Everything a person or CI does with a checkout. `make` alone lists it.

PYTHON ?= python3
BOOTSTRAP = @$(PYTHON) scripts/bootstrap.py
BIN = .venv/bin

# What this project adds to `uv pip compile`: every platform, wheels only (no compiler to install).
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: \
	--no-header --no-annotate --group build pyproject.toml
COVERAGE_MIN = 95

.DEFAULT_GOAL = help
.PHONY: help run learners airflow test check static coverage bench lock clean
.NOTPARALLEL:

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 18

# Recipes end in `exec`, so that Ctrl-C and the exit code pass between the program and make.
run:  ## set up and start the demo market [ARGS="--exit"] [CORE=1]
	$(BOOTSTRAP) $(if $(CORE),core,learners)
	@exec $(BIN)/liveops run $(ARGS)

learners:  ## set up what trains challengers too: torch and Stable-Baselines3
	$(BOOTSTRAP) learners

airflow:  ## set up Airflow in .venv-airflow, to test the DAGs with
	$(BOOTSTRAP) core
	@exec $(PYTHON) scripts/airflow_environment.py

test:  ## set up and run the whole test suite [ARGS="-k name"]
	$(BOOTSTRAP) dev
	@exec $(BIN)/python -m pytest -n 3 --dist worksteal $(MEASURE) $(ARGS)

check: MEASURE = --cov --cov-report=
check: static test coverage  ## what must be green before a review

static:  ## the part of check that runs no tests: lint, format, imports, types
	$(BOOTSTRAP) dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy scripts benchmarks

coverage:  ## judge the coverage that the last `make check` measured
	@exec $(BIN)/coverage report --include='bandit/core/*' --skip-covered --show-missing \
		--fail-under=$(COVERAGE_MIN)

bench:  ## measure each claim beside its yardstick [GROUP=core] [QUICK=1]
	$(BOOTSTRAP) dev
	@exec $(BIN)/python benchmarks/run.py $(GROUP) $(if $(QUICK),--quick)

lock:  ## compile requirements/ from pyproject.toml [ARGS="--upgrade"]
	$(BOOTSTRAP) dev
	$(LOCK) --output-file requirements/core.txt $(ARGS)
	$(LOCK) --extra learners --constraints requirements/core.txt \
		--output-file requirements/learners.txt $(ARGS)
	$(LOCK) --extra learners --extra dev --constraints requirements/learners.txt \
		--output-file requirements/dev.txt $(ARGS)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: \
		--no-header --no-annotate requirements/airflow.in --output-file requirements/airflow.txt $(ARGS)

clean:  ## stop the embedded server; remove .venv, caches and var/
	@exec $(PYTHON) scripts/clean.py
