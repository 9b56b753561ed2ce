# `make demo` sets everything up and hears a melody; `make test` runs the tests. `make help` lists the rest.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
CASES ?= 100000
MINUTES ?= 10
SEED ?= 1
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test conformance conformance-examples test-unit test-slow fuzz soak chaos check format generate
.PHONY: bench clean
.PHONY: bench-quick bench-all bench-cpu bench-batching bench-large bench-limit
.PHONY: bench-foreign bench-isolation bench-swap bench-memory bench-engines bench-density bench-batch bench-ipc bench-engine

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "modelhost needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing modelhost, its server and the development tools (TensorFlow takes a minute)…"
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[server,s3,http]' --group dev
	@touch $@

setup: $(STAMP)  ## Create the virtual environment and install everything into it.

demo: $(STAMP)  ## Set up, start a server, load a real model and let it hear a melody.
	@$(BIN)/python examples/hear_notes.py

serve: $(STAMP)  ## Run the server on 127.0.0.1:8500.
	@$(BIN)/modelhost serve

test: $(STAMP)  ## Run all tests but the slow ones, then other projects' clients.
	$(BIN)/pytest -m 'not slow' --numprocesses auto --maxprocesses 4 --dist loadfile
	$(BIN)/python -m tests.conformance

conformance: $(STAMP)  ## Run other projects' own clients against the server, each in an environment of its own.
	$(BIN)/python -m tests.conformance

conformance-examples: $(STAMP)  ## Run Triton's own example programs: EXAMPLES=src/python/examples of its client.
	$(BIN)/python -m tests.conformance.examples $(EXAMPLES)

test-unit: $(STAMP)  ## Run the tests that need no server: seconds.
	$(BIN)/pytest tests/unit

test-slow: $(STAMP)  ## Run the soak, load and fault tests.
	$(BIN)/pytest -m slow

fuzz: $(STAMP)  ## Fuzz all that takes bytes from others: 100,000 cases, CASES=… and SEED=… for others.
	$(BIN)/pip install --quiet --disable-pip-version-check --group fuzz
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m fuzz --cases $(CASES) --seed $(SEED)

soak: $(STAMP)  ## Load 5,000 times, predict 100,000 times, and compare what the server holds: ten minutes.
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m soak

chaos: $(STAMP)  ## Load for ten minutes (MINUTES=…) while processes are killed and the disk is full; SEED=… repeats.
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m chaos --minutes $(MINUTES) --seed $(SEED)

check: $(STAMP)  ## Lint, type check, check imports, protos and generated code.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint
	PYTHON=$(BIN)/python scripts/check_generated.sh

format: $(STAMP)  ## Format the code and mend what ruff can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(STAMP)  ## Generate the code of protos/ and the synchronous client.
	PYTHON=$(BIN)/python scripts/generate.sh

bench: $(STAMP)  ## modelhost beside the servers that people use: half an hour.
	$(BIN)/python -m benchmarks.bench

bench-quick: $(STAMP)  ## The same, rough, in under ten minutes.
	$(BIN)/python -m benchmarks.bench --quick

bench-all: bench bench-cpu bench-foreign bench-batching bench-large bench-limit  ## Run all benchmarks.
bench-all: bench-isolation bench-swap bench-memory bench-engines bench-density bench-ipc bench-engine

bench-cpu: $(STAMP)  ## Processor time that a call costs modelhost, in its modes.
	$(BIN)/python -m benchmarks.cpu

bench-foreign: $(STAMP)  ## Throughput of other projects' protocols beside our own.
	$(BIN)/python -m benchmarks.foreign

bench-batching: $(STAMP)  ## What batching gains.
	$(BIN)/python -m benchmarks.batching

bench-large: $(STAMP)  ## Tensors of 10 MB: bytes over gRPC, and shared memory.
	$(BIN)/python -m benchmarks.large

bench-limit: $(STAMP)  ## modelhost beside a loop in one process, on the same engine.
	$(BIN)/python -m benchmarks.limit

bench-isolation: $(STAMP)  ## Latency of one scope while another one loads.
	$(BIN)/python -m benchmarks.isolation

bench-swap: $(STAMP)  ## Latency of a model while its versions are swapped.
	$(BIN)/python -m benchmarks.swap

bench-memory: $(STAMP)  ## Memory before, with, and after ten ResNet50s.
	$(BIN)/python -m benchmarks.memory

bench-engines: $(STAMP)  ## What the engine that modelhost chooses gains, on eight models.
	$(BIN)/python -m benchmarks.engines

bench-density: $(STAMP)  ## Memory of fine-tunes of one model, then all that bench-batch measures.
	$(BIN)/python -m benchmarks.density
	$(BIN)/python -m benchmarks.batch

bench-batch: $(STAMP)  ## Loading a hundred models at once, and the memory of ten MobileNetV2s on LiteRT.
	$(BIN)/python -m benchmarks.batch

bench-ipc: $(STAMP)  ## Ways to carry tensors between server and worker.
	$(BIN)/python -m benchmarks.ipc

bench-engine: $(STAMP)  ## Ways to call TensorFlow.
	$(BIN)/python -m benchmarks.engine

clean:  ## Remove everything that can be made again.
	rm -rf $(VENV) .tools .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
