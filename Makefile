# Each target sets everything up first; that ends at once when nothing changed.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-live programs ui lint typecheck params lock clean benchmark-demo benchmark-windows \
  benchmark-audit benchmark-landing benchmark-night benchmark-orchestration
.NOTPARALLEL:

BIN := $(CURDIR)/.venv/bin
PROFILE ?= demo
WORKERS ?= 2# of the tests
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Bytecode makes every start several times faster; libraries that report home stay quiet.
unexport PYTHONDONTWRITEBYTECODE
export DAGSTER_DISABLE_TELEMETRY := yes
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Create .venv from requirements.lock and check that the machine can draw
	@scripts/setup.sh

demo: setup ## Carry two tasks from demonstrations to refined policies and a report, through Dagster
	@$(BIN)/python -m pipelines.demo

programs: setup # what only the live tests start: PostgreSQL's server and a browser
	@scripts/setup.sh tests

test: lint typecheck ## Lint, type check, and run the tests
	$(PYTEST) -m 'not live'

test-live: programs ## Run the tests that start servers or a browser, or kill processes
	$(PYTEST) -m live

ui: setup ## Open the Dagster UI on loopback
	@$(BIN)/python -m pipelines.ui

lint: setup ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup ## Check types
	$(BIN)/mypy

params: setup ## Write params.yaml from a profile: make params PROFILE=demo
	$(BIN)/world4rl params --profile $(PROFILE) --out params.yaml

lock: ## Resolve requirements.in into requirements.lock and install it
	@scripts/setup.sh lock

benchmark-demo: setup ## Refined against cloned policy over three seeds
	$(BIN)/python -m benchmarks.demo

benchmark-windows: setup ## The window sampler against LeRobot's own random windows
	$(BIN)/python -m benchmarks.windows

benchmark-audit: setup ## Seconds of each question of the audit, over 100,000 episodes
	$(BIN)/python -m benchmarks.audit

benchmark-landing: setup ## A look at a landing folder of 10,000 settled datasets, and seconds from landed to queued
	$(BIN)/python -m benchmarks.landing
	$(BIN)/python -m benchmarks.latency

benchmark-night: setup ## After the demo, more demonstrations land, and the daemon does the rest
	$(BIN)/python -m benchmarks.night

benchmark-orchestration: setup ## What Dagster and DVC cost beside the work
	$(BIN)/python -m benchmarks.orchestration

clean: ## Remove the environment and caches; data, models and reports stay
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info lerobot_policy_world4rl/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
