# One door for every chore. Needs make and Python 3.11 or newer; the rest is set up in .venv/.
# Paths must not contain spaces: make cannot quote them.

PYTHON ?= python3
DRIVER ?= memory
# Passed through to pytest, to the benchmarks and to the demo: make test ARGS="-k lease -x", make demo ARGS=--keep
ARGS ?=

# One environment per Python version, so that changing PYTHON never reuses the wrong one.
PYVER := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
DEMO := .venv/demo-$(PYVER)
DEV := .venv/dev-$(PYVER)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-full check lint types imports docs bench clean python-ok

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'With another interpreter: make test PYTHON=python3.12. Arguments for pytest, bench and demo: ARGS="-k lease".'

demo: $(DEMO)/.ready ## run the quickstart: a producer and workers on one SQLite file (installs the core alone)
	@$(DEMO)/bin/python examples/quickstart.py $(ARGS)

# Files of tests run side by side, each file in one process; ARGS=-n0 runs all in this one, for a debugger.
PYTEST := -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

test: $(DEV)/.ready ## run the tests, without the slow ones
	@$(DEV)/bin/python $(PYTEST) -m "not slow" $(ARGS)

test-full: $(DEV)/.ready ## run every test: soak, chaos and large sizes too
	@$(DEV)/bin/python $(PYTEST) $(ARGS)

check: lint types imports docs ## run the linters, the type checkers, the import rules, and build the docs strictly

# The parts of check, also called by pre-commit.
lint: $(DEV)/.ready
	@$(DEV)/bin/ruff check
	@$(DEV)/bin/ruff format --check

types: $(DEV)/.ready
	@$(DEV)/bin/mypy
	@$(DEV)/bin/basedpyright --pythonpath $(DEV)/bin/python

imports: $(DEV)/.ready
	@$(DEV)/bin/lint-imports

docs: $(DEV)/.ready ## build the documentation into build/site; a page, link or name that is missing fails
	@$(DEV)/bin/python docs/stage.py build/pages
	@$(DEV)/bin/zensical build --strict --clean

bench: $(DEV)/.ready ## run the benchmarks: make bench DRIVER=memory
	@$(DEV)/bin/python -m benchmarks --driver $(DRIVER) $(ARGS)

clean: ## remove the environments, caches and build products
	rm -rf .venv build dist .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: a broken set-up is started afresh by the next call.
$(DEMO)/.ready: pyproject.toml | python-ok
	@echo "Setting up $(DEMO) (once) ..."
	@$(PYTHON) -m venv --clear $(DEMO)
	@$(DEMO)/bin/python $(PIP_INSTALL) -e .
	@touch $@

$(DEV)/.ready: pyproject.toml | python-ok
	@echo "Setting up $(DEV) (once, about a minute) ..."
	@$(PYTHON) -m venv --clear $(DEV)
	@$(DEV)/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

# Says what to install before anything fails halfway. (Debian's Python has venv without ensurepip.)
python-ok:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "TaskHarbor needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo 'not there or does not run')."; \
	  for name in python3.14 python3.13 python3.12 python3.11; do \
	    if $$name -c '' 2>/dev/null; then echo "Found $$name here. Try: make $(MAKECMDGOALS) PYTHON=$$name"; exit 1; fi; \
	  done; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3.12;"; \
	  echo "macOS: brew install python), then choose it, if need be: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot create virtual environments: its venv or ensurepip module is missing."; \
	  echo "Install it (Debian, Ubuntu: apt install python3-venv or python$(PYVER)-venv), or choose another"; \
	  echo "interpreter: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  exit 1; }
