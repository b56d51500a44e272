# Everything goes into .venv; nothing else on the machine is changed.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CODE := kabench agents tests
TIERS := unit contracts integration
REPORTS := .cache/tests
COVERAGE := --cov --cov-branch --cov-append --cov-report=

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(STAMP)  ## set .venv up: locked dependencies, and this project in place

# --no-deps: the lock holds everything, and pip, resolving once more, would want a release newer than the lock's, which has no hash
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; install it, or: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) has no venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "setting up $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(PIP) install --no-deps --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@$(PIP) check
	@touch $@

.PHONY: bench
bench: venv  ## the whole benchmark on this machine, within four minutes
	$(BIN)/kabench run --agents 6 --quick

.PHONY: bench-full
bench-full: venv  ## the 30-minute run, with its controls
	$(BIN)/kabench run --agents 6 --duration 30m

.PHONY: test
test: lint types imports  ## lint, types, imports and all tests, with branch coverage
	@rm -f .coverage
	@$(MAKE) --no-print-directory $(TIERS) PYTEST_EXTRA="$(COVERAGE)"
	@$(BIN)/coverage report --format=total | sed 's/.*/branch coverage: &%/'
	@for tier in $(TIERS); do \
		echo "$$tier: $$(sed -n 's/.*<testsuite [^>]*tests="\([0-9]*\)".*/\1/p' $(REPORTS)/$$tier.xml) tests"; done

.PHONY: lint
lint: venv  ## ruff: rules and format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

.PHONY: types
types: venv  ## mypy --strict
	$(BIN)/mypy

.PHONY: imports
imports: venv  ## the layers, kept by import-linter
	$(BIN)/lint-imports --cache-dir .cache/import-linter

# pytest fails where a tier has no test
.PHONY: $(TIERS)
unit: venv  ## tests of single modules, in virtual time
contracts: venv  ## one suite for the real thing and its fake
integration: venv  ## tests with real servers, processes and load
$(TIERS):
	@mkdir -p $(REPORTS)
	$(BIN)/pytest tests/$@ -q --junit-xml=$(REPORTS)/$@.xml $(PYTEST_EXTRA)

.PHONY: e2e
e2e: venv  ## tests on a real Kubernetes of six workers; needs root, Go and Debian's packages
	@mkdir -p $(REPORTS)
	$(BIN)/pytest tests/e2e -q --durations=8 --junit-xml=$(REPORTS)/e2e.xml
	@echo "e2e: $$(sed -n 's/.*<testsuite [^>]*tests="\([0-9]*\)".*/\1/p' $(REPORTS)/e2e.xml) tests"

.PHONY: cov
cov: venv  ## what the unit tests and contracts leave uncovered, line by line
	@rm -f .coverage
	@$(MAKE) --no-print-directory unit contracts PYTEST_EXTRA="$(COVERAGE)"
	$(BIN)/coverage report

.PHONY: perf
perf: venv  ## the engine beside other load generators, into perf/ (ROWS="redis http" for some); what the controller costs
	$(BIN)/python tests/perf/bench.py $(ROWS)
	$(if $(ROWS),,$(BIN)/python tests/perf/perf_controller.py)

FUZZ_RUNS ?= 300000
FUZZ_READERS := resp opening http head
FUZZ_SECONDS ?= 900

.PHONY: fuzz
fuzz: venv  ## coverage-guided fuzzing of the parsers: over a million inputs, a quarter of an hour a parser at most
	@$(PIP) install --no-deps --only-binary :all: --require-hashes --requirement tests/fuzz/requirements.txt || { \
		echo "error: atheris has no wheel for $$($(BIN)/python --version); use another: make PYTHON=python3.11 venv" >&2; exit 1; }
	@for reader in $(FUZZ_READERS); do \
		$(BIN)/python tests/fuzz/fuzz_readers.py $$reader -runs=$(FUZZ_RUNS) -max_total_time=$(FUZZ_SECONDS) >.cache/fuzz-$$reader.log 2>&1 || { \
			cat .cache/fuzz-$$reader.log; exit 1; }; \
		echo "$$reader: $$(sed -n 's/^Done \([0-9]*\) runs in \([0-9]*\) second.*/\1 inputs in \2 s, nothing found/p' .cache/fuzz-$$reader.log)"; \
	done

UV_COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --quiet --upgrade --custom-compile-command "make lock"

# the image's own files take their versions from requirements.lock: what was tested is what runs on the nodes
.PHONY: lock
lock: venv  ## resolve requirements.lock anew, for every platform, and the agent image's requirements from it
	$(UV_COMPILE) pyproject.toml --extra dev --group build --output-file requirements.lock
	$(UV_COMPILE) --group agent --constraint requirements.lock --output-file agents/requirements.txt
	$(UV_COMPILE) --group build --constraint requirements.lock --output-file agents/build-requirements.txt
	$(UV_COMPILE) --group fuzz --output-file tests/fuzz/requirements.txt

.PHONY: dist
dist: venv  ## build the wheel into dist/
	$(PIP) wheel --no-deps --no-build-isolation --no-index --wheel-dir dist .

.PHONY: clean
clean:  ## remove .venv, caches and what was built; results/ stays
	rm -rf $(VENV) .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

# A kind cluster with the same images, where a docker engine runs. kind is installed, or Go builds the one of tests/kind.
KIND := PYTHONPATH=tests $(BIN)/python -m cluster.kind

.PHONY: image
image: venv  ## build the pods' images with docker
	@$(KIND) image

.PHONY: kind-up
kind-up: venv  ## a kind cluster of six workers, each bound to its own CPUs as far as there are enough
	@$(KIND) up

.PHONY: kind-load
kind-load: venv  ## load the images into the kind cluster, and check that they are there
	@$(KIND) load

.PHONY: kind-bench
kind-bench: venv  ## the benchmark on the kind cluster
	$(BIN)/kabench run --backend kubernetes --context kind-kabench --agents 6 --quick

.PHONY: kind-down
kind-down: venv  ## delete the kind cluster
	@$(KIND) down

# A real Kubernetes of six workers on this machine, without Docker or kind: tests/cluster/README.md
CLUSTER := PYTHONPATH=tests $(BIN)/python -m cluster

.PHONY: cluster-up
cluster-up: venv  ## the test cluster: six workers; KUBECONFIG=.cluster/kubeconfig
	@$(CLUSTER) up

.PHONY: cluster-down
cluster-down: venv  ## take the test cluster down, whatever state it is in
	@$(CLUSTER) down

.PHONY: cluster-status
cluster-status: venv  ## what runs of the test cluster
	@$(CLUSTER) status
