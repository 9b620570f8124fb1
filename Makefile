# make run    the main job, from nothing          make test   the whole test suite, from nothing
# make check  what CI runs: lint, types, tests    make env    the environment alone
# make peers  CapyMOA, which `bench` compares with, in an environment of its own (Java, 1.4 GB)
# make soak   200 kills over every kind of source and 2,000,000 events: results/soak.json, an hour
# make bench-gpu  what adapting many tasks costs, on the CPU and on a CUDA device where there is one
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers

.PHONY: run test check lint types env compiled peers soak bench-gpu clean

run: env
	$(BIN)/streammeta run examples/quickstart.toml --fresh

test: compiled
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: lint types test

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

env: $(STAMP)

# torch first, at the tested version, so that nothing else can choose another build
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,parquet,yaml,report,redis,nats,mqtt,kafka,websocket,serve]'
	touch $(STAMP)

# once, by several processes, and not by every test process for itself
compiled: env
	$(BIN)/python -m streammeta.compiling

peers: $(PEERS)/.installed

$(PEERS)/.installed: constraints-peers.txt
	@command -v java >/dev/null || { echo "make peers: CapyMOA needs Java 17 or later; install a Java runtime" >&2; exit 1; }
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check -c constraints-peers.txt torch
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check -c constraints-peers.txt capymoa
	touch $@

soak: env
	$(BIN)/python tests/soak.py --kills 200 --long 2000000 --default 300000 --json results/soak.json

bench-gpu: env
	$(BIN)/python -m scenarios.device_bench

clean:
	rm -rf $(VENV) $(PEERS) runs .pytest_cache .mypy_cache .ruff_cache
