# The front door. `make check` and `make test` are what CI runs; `make demo` needs the base install only.
#
#   make demo          builds, pushes and benches a real model on this machine
#   make check         formatting, lint, types, layers
#   make test          every test that needs no machine of its own (EXTRAS= leaves the extras out)
#   make test-device   the tests on machines that they start themselves: real interpreters, emulated boards
#   make test-ci       both in one run, without what takes minutes by itself
#   make clean         what these commands made

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo check test test-device test-ci clean openssh servers machines

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The oldest Python that will do first: it is what most users have.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$name"; break; }; done)
# The runtimes whose converters tests run; EXTRAS=torch takes that one alone.
comma := ,
EXTRAS ?= torch,prune,tflite,executorch,tensorrt
# DEVICE="device and not long" leaves out what takes minutes.
DEVICE ?= device
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)
SOURCES := packager targets agent profiles benchmarks scripts tests

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.edgepack-base
	@$(BIN)/edgepack demo

check: $(VENV)/.edgepack-dev
	@echo "format"; $(BIN)/ruff format --quiet --check $(SOURCES)
	@echo "lint";   $(BIN)/ruff check --quiet $(SOURCES)
	@echo "types";  $(BIN)/mypy --no-error-summary
	@echo "layers"; $(BIN)/lint-imports --no-logo > $(VENV)/layers.log \
		|| { cat $(VENV)/layers.log; exit 1; }

EXTRAS_STAMP := $(if $(EXTRAS),$(VENV)/.edgepack-extras-$(subst $(comma),-,$(EXTRAS)))

test: $(VENV)/.edgepack-dev $(EXTRAS_STAMP) openssh servers
	@$(PYTEST) -m "not device"

test-device: $(VENV)/.edgepack-dev openssh machines
	@$(PYTEST) -m "$(DEVICE)"

# One run of pytest: while a worker waits for an emulated machine, the other goes on with the rest.
test-ci: $(VENV)/.edgepack-dev $(EXTRAS_STAMP) openssh servers machines
	@$(PYTEST) -m "not long"

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis ./*.egg-info
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "edgepack needs Python 3.11 or newer, and none is on PATH." \
		"Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp is written when its packages are in, and is stale when pyproject.toml is newer.
$(VENV)/.edgepack-base: pyproject.toml | $(BIN)/python
	@echo "installing edgepack"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.edgepack-dev: pyproject.toml | $(VENV)/.edgepack-base
	@echo "installing what checks and tests need"
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.edgepack-extras-%: pyproject.toml | $(VENV)/.edgepack-dev
	@echo "installing the extras $(EXTRAS)"
	@$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@

# A new machine may have no package lists, or old ones: fetched when an installation fails, and a second failure speaks.
export DEBIAN_FRONTEND := noninteractive
apt_install = apt-get install -y -qq --no-install-recommends $(1) >/dev/null
apt = { $(apt_install) 2>/dev/null || { apt-get update -qq && $(apt_install); }; }

# The tests over SSH start a server of their own; without one they are skipped, and say so.
openssh:
	@if [ -x /usr/sbin/sshd ] || command -v sshd >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing openssh-server"; $(call apt,openssh-server); \
	else echo "the tests over SSH will be skipped; to run them: sudo apt-get install openssh-server" >&2; fi

# The tests on emulated machines need qemu and more; without it they are skipped, and say so.
machines: $(VENV)/.edgepack-dev
	@$(BIN)/python scripts/device_packages.py || echo "the tests on emulated machines will be skipped" >&2

# The tests of the results start a PostgreSQL server and open pages in chromium; without them they are skipped, and say so.
servers:
	@if command -v chromium >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing postgresql and chromium"; $(call apt,postgresql chromium); \
	else echo "some tests of results will be skipped; to run them: sudo apt-get install postgresql chromium" >&2; fi
