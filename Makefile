# Two commands from nothing: `make demo` and `make test`. Both need python3 (3.10 or later) with venv, and no more.
# Every target is phony: docs, proto, export and deploy are also folders, and would be "up to date" for ever.

PYTHON ?= python3
SLIDE ?=

# The demo's environment is what a device has: never torch. The developers' has everything.
DEMO := .venv
DEV := .venv-dev
TOOLS := .venv-tools
BUF := @bufbuild/buf@1.75.0
CONSTRAINTS := tests/constraints.txt
# As many test processes as there are cores; WORKERS=0 runs them in one, for a debugger.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST = EDGE_MIL_PROTO_PYTHON=$(CURDIR)/$(TOOLS)/bin/python $(DEV)/bin/python -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check lint format types layers units units-all docs proto proto-check proto-lint \
	wheel clean trt-build

help:
	@echo "make demo [SLIDE=path]  play a slide through a real service, end with a report (no torch)"
	@echo "make test               lint, types, import contracts, generated code, docs, and all but the slow tests"
	@echo "make test-all           the same with the slow tests"
	@echo "make trt-build          build every exported graph with TensorRT-RTX's real builder; no GPU needed"
	@echo "make check              everything of make test but pytest"
	@echo "make docs               build the documentation into site/, every warning an error"
	@echo "make format             let ruff mend what it can"
	@echo "make proto              write edge_mil/v1 again from proto/"
	@echo "make wheel              build the wheel into dist/"
	@echo "make clean              remove the environments and caches made by these targets"

demo: $(DEMO)/.ready
	$(DEMO)/bin/edge-mil demo $(if $(SLIDE),"$(SLIDE)")

test: check units

test-all: check units-all

check: lint types layers proto-lint proto-check docs

lint: $(DEV)/.ready
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

format: $(DEV)/.ready
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

types: $(DEV)/.ready
	$(DEV)/bin/mypy

layers: $(DEV)/.ready
	$(DEV)/bin/lint-imports

units: $(DEV)/.ready $(TOOLS)/.ready
	$(PYTEST) -m "not slow"

units-all: $(DEV)/.ready $(TOOLS)/.ready
	$(PYTEST)

# The page of the wire is made from the descriptors of the .proto, which the tools' protoc writes.
docs: $(DEV)/.ready $(TOOLS)/.ready
	EDGE_MIL_PROTO_PYTHON=$(CURDIR)/$(TOOLS)/bin/python NO_MKDOCS_2_WARNING=1 \
	  $(DEV)/bin/mkdocs build --quiet --strict --config-file docs/mkdocs/mkdocs.yml
	@echo "docs: site/index.html"

# 91 MiB, so not part of the developers' environment; once installed, make test runs its quick tests too.
trt-build: $(DEV)/.ready
	$(DEV)/bin/python -m pip install -q -c $(CONSTRAINTS) "tensorrt-rtx>=1.2"
	$(DEV)/bin/python -m pytest -m trt_build

proto: $(TOOLS)/.ready
	proto/generate.sh $(TOOLS)/bin/python .

# Compared with the files, not with git, so that it holds before a commit too.
proto-check: $(TOOLS)/.ready
	@rm -rf $(TOOLS)/generated && proto/generate.sh $(TOOLS)/bin/python $(TOOLS)/generated
	@for made in $(TOOLS)/generated/edge_mil/v1/*; do \
	  cmp "$$made" "edge_mil/v1/$${made##*/}" \
	    || { echo "edge_mil/v1 is older than proto/: run make proto, then commit it."; exit 1; }; \
	done
	@echo "proto-check: edge_mil/v1 is what proto/ generates"

# buf comes from npm; a machine without it still tests everything else, and says so.
proto-lint:
	@if [ -x $(TOOLS)-buf/node_modules/.bin/buf ]; then :; \
	elif ! command -v npm >/dev/null; then echo "buf lint: skipped, this machine has no npm"; exit 0; \
	elif ! npm install --silent --no-fund --no-audit --prefix $(TOOLS)-buf $(BUF) </dev/null; then \
	  echo "buf lint: skipped, npm could not fetch $(BUF)"; exit 0; fi; \
	cd proto && ../$(TOOLS)-buf/node_modules/.bin/buf lint && echo "buf lint: clean"

wheel: $(DEV)/.ready
	$(DEV)/bin/python -m pip wheel -q --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf $(DEMO) $(DEV) $(TOOLS) $(TOOLS)-buf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache

# A stamp for each environment, written last: a second `make` is quick, one that was cut off starts over.

$(DEMO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install -q --disable-pip-version-check --upgrade pip
	$(DEMO)/bin/python -m pip install -q -e ".[device]"
	@touch $@

# Torch first and by itself: where pip finds a local CPU wheel it takes that one, and nothing after it may change it.
# Dependency groups want pip 25.1, and Python 3.10 and 3.11 bring an older one.
$(DEV)/.ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
	$(DEV)/bin/python -m pip install -q -c $(CONSTRAINTS) torch
	$(DEV)/bin/python -m pip install -q -c $(CONSTRAINTS) -e ".[bench]" --group dev
	@touch $@

# The oldest tools that we support: generated code refuses a grpcio or protobuf that is older than its maker.
$(TOOLS)/.ready: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install -q --disable-pip-version-check --upgrade pip
	$(TOOLS)/bin/python -m pip install -q "grpcio-tools==1.66.2" "mypy-protobuf==3.6.0" "setuptools<81"
	@touch $@
