# Every task of the project. Each one sets up what it needs in .venv, and is quick the second time.

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak mutants lock fmt clean
SHELL := /bin/sh
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH VIRTUAL_ENV

# Passed on to the task: make demo ARGS="--seed 3", make test ARGS="tests/rules -k stream"
ARGS ?=
# Another Python for .venv: make test PYTHON=python3.13
PYTHON ?=
export PYTHON
# How many test processes run side by side; each has a PostgreSQL of its own. One that crashes ends
# the run: pytest-xdist 3.8 hangs when it replaces one (its issue 1378).
JOBS ?= 2
# Branch coverage that `make test` asks for, in percent: the whole package, and its rules modules. All
# of the rules is the aim; the tenth is for a branch that only some drawn examples reach.
COVERAGE_PACKAGE ?= 90
COVERAGE_RULES ?= 99.9

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: ## the offline show: 30 tickets from webhook to written comment, no keys, no network
	@sh scripts/bootstrap.sh demo
	@.venv/bin/llm-integrations demo $(ARGS)

test: ## all tests, in random order, with coverage
	@sh scripts/bootstrap.sh dev
	@.venv/bin/python -m scripts.chromium
	@.venv/bin/python -m scripts.postgresql
	@.venv/bin/python -m pytest -n $(JOBS) --dist loadgroup --max-worker-restart 0 --cov --cov-report= $(ARGS)
ifeq ($(ARGS),)
	@.venv/bin/python -m scripts.coverage_gate --package $(COVERAGE_PACKAGE) --rules $(COVERAGE_RULES)
endif

check: ## style, types and layers, in under two minutes
	@sh scripts/bootstrap.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pyright --warnings
	.venv/bin/lint-imports --no-logo

bench: ## speed beside other libraries and bare baselines; writes bench/results
	@sh scripts/bootstrap.sh dev
	@.venv/bin/python -m bench $(ARGS)

soak: ## the tests that run for minutes
	@sh scripts/bootstrap.sh dev
	@.venv/bin/python -m pytest -m soak --timeout 1800 -s $(ARGS)

mutants: ## whether the tests notice every small change of a module; ARGS="anthropic/pricing"
	@sh scripts/bootstrap.sh dev
	@.venv/bin/python -m scripts.mutants $(ARGS)

lock: ## write requirements/*.txt anew; ARGS=--upgrade takes newer versions
	@sh scripts/bootstrap.sh dev
	@.venv/bin/python -m scripts.lock $(ARGS)

fmt: ## format the code and fix what can be fixed safely
	@sh scripts/bootstrap.sh dev
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

clean: ## remove .venv and everything else that was made
	rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache
	rm -rf .ruff_cache build dist
	find bench scripts src tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
