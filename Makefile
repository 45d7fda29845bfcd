# Every target sets up .venv first; `make help` lists them.
.DEFAULT_GOAL := help
PY := .venv/bin/python
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
# Threads that wait must not spin for long: on a machine with other work that makes two threads slower than one. Nor must
# they sleep at once: waking one up takes as long as many a kernel, and made two threads hardly quicker than one.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 1000
# Tests compute in one thread and wait for others half of their time, so three processes share two cores; those that need
# the run's engine stay in one of them.
SIDE_BY_SIDE := -n 3 --dist loadscope --no-loadscope-reorder

.PHONY: help setup demo up check format test test-faults test-fleet fuzz bench clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup:  ## make or refresh .venv (about 5 minutes the first time)
	@scripts/setup.sh

demo: setup  ## three real people: transcripts to served profiles, in about 10 minutes
	@OMP_NUM_THREADS=2 .venv/bin/lorry demo

up: setup  ## start PostgreSQL, SeaweedFS, the registry, one vLLM engine, the gateway and an extraction worker
	@.venv/bin/lorry up

check: setup  ## lint, formatting, types, docs
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup  ## let ruff mend what it can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

test: setup  ## every test but the faults; real PostgreSQL, S3, training and vLLM (under 25 minutes)
	@$(PY) -m pytest tests --ignore=tests/faults --ignore=tests/fleet $(SIDE_BY_SIDE) --durations=15

test-faults: setup  ## tests that kill or break engines and servers (under 25 minutes)
	@$(PY) -m pytest tests/faults $(SIDE_BY_SIDE) --durations=15

test-fleet: setup  ## two real engines behind Envoy, watched by Prometheus, killed and restarted (about 10 minutes)
	@$(PY) -m pytest tests/fleet --durations=15

fuzz: setup  ## the tests that draw their own examples, with new ones each time
	@$(PY) -m pytest tests/unit tests/integration -m hypothesis --hypothesis-profile fuzz $(SIDE_BY_SIDE)

bench: setup  ## benchmarks, ours and a peer's in one run: make bench [NAME=first_profile] [QUICK=1] [MINUTES=30]
	@$(PY) -m bench $(if $(NAME),$(NAME)) $(if $(QUICK),--quick) $(if $(MINUTES),--minutes $(MINUTES))

clean:  ## remove .venv and every cache (LORRY_HOME stays)
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis build dist
