# Every target does its own set-up; called again it costs next to nothing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Fast tests: a file at a time on each core, on four at most, for each loads torch.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile
CODE := automl connectors encoders fusion pipelines tests benchmarks examples

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup tools demo test test-fast test-integration lint fmt type bench pins

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.compiled  ## .venv with the pinned packages, Java jars, compiled code

tools:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed. \
	Debian: apt-get install python3.11-venv (or: make PYTHON=/path/to/python3.11)" >&2; exit 1; }
	@command -v java >/dev/null || { echo "java is not installed. \
	Debian and Ubuntu: apt-get install openjdk-17-jre-headless" >&2; exit 1; }
	@command -v mvn >/dev/null || { echo "mvn is not installed. \
	Debian and Ubuntu: apt-get install maven" >&2; exit 1; }

$(VENV)/.packages: pyproject.toml constraints.txt | tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned packages (about 6 GB with torch)" >&2
	@$(BIN)/python -m pip install --quiet -c constraints.txt uv \
	&& $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]' \
	|| $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.jars: $(VENV)/.packages pipelines/jars.xml pipelines/jars.sha256 | tools
	@$(BIN)/python -m pipelines.jars
	@touch $@

$(VENV)/.compiled: $(VENV)/.jars $(wildcard automl/*.py)
	@$(BIN)/python -m automl.compiled
	@touch $@

demo: setup  ## broker, cluster, jobs, synthetic events, live view: make demo ARGS="--events 2000"
	$(BIN)/sluice demo $(ARGS)

test: setup  ## the fast tests, then those on the real broker and cluster
	@$(MAKE) --no-print-directory test-fast
	@$(MAKE) --no-print-directory test-integration

test-fast: setup  ## tests that need no broker and no cluster
	$(BIN)/python -m pytest -q -m "not integration" $(SIDE_BY_SIDE) $(ARGS)

test-integration: setup  ## tests on a real broker and a real Flink cluster
	$(BIN)/python -m pytest -q -m integration --durations=8 $(ARGS)

lint: setup  ## ruff: rules and layout
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

fmt: setup  ## ruff: mend what it can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

type: setup  ## mypy, strict
	$(BIN)/mypy

bench: setup  ## throughput, latency and cost on this machine: make bench ARGS="--quick"
	$(BIN)/sluice bench $(ARGS)

pins: setup  ## write constraints.txt anew from .venv
	@{ head -2 constraints.txt; $(BIN)/uv pip freeze --python $(BIN)/python \
	| grep -vE '^(-e |sluice|pip==)'; } > constraints.new
	@mv constraints.new constraints.txt
