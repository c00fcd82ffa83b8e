# Two commands do all the set-up on a fresh machine: make demo, make test. The tests that need Kafka or InfluxDB are run
# where `make services` has been before, and named where not.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= python3

.PHONY: install services test demo demo-fleet soak lint bench accuracy clean

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); } || { \
	  echo "make: $(PYTHON) cannot make an environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP)

services:
	tests/services/fetch.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	@command -v cc >/dev/null || { \
	  echo "make: the tests compile a small fake GPU driver; on Debian: apt-get install gcc libc6-dev" >&2; exit 1; }
	$(BIN)/pytest

demo: $(STAMP)
	$(BIN)/wattribute demo $(if $(KEEP),--keep)

demo-fleet: $(STAMP)
	$(BIN)/python tests/demo_fleet.py

soak: $(STAMP)
	$(BIN)/python tests/soak.py
	WATTRIBUTE_SOAK=1 $(BIN)/pytest tests/test_fleet_faults_clocks.py tests/test_fleet_faults_kafka.py \
	  tests/test_fleet_faults_store.py tests/test_fleet_holes.py tests/test_fleet_upgrade.py \
	  tests/test_grow_partitions.py

bench: $(STAMP)
	$(BIN)/python -m bench

# About an hour. SEEDS="2" for fewer seeds; RECORDINGS=folder keeps what the simulator made.
accuracy: $(STAMP)
	$(BIN)/python -m bench.accuracy --write docs/accuracy.md $(SEEDS:%=--seed %) $(RECORDINGS:%=--recordings %)

clean:
	rm -rf $(VENV) demo-data
