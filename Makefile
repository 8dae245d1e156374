# Two commands do everything: `make demo` and `make test`. Each makes its own environment first, and keeps it.
#
#   PYTHON        the interpreter, 3.10 to 3.13 (default: the first one found)
#   VENV          where the environment lies (default: .venv)
#   TORCH         the PyTorch to install, as pip spells it
#   TORCH_INDEX   one more place for pip to look for it; for the small CPU build where pip would take the CUDA build:
#                   make demo TORCH=torch==2.13.0+cpu TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   DEMO          the demo's folder (default: demo)

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$name -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
DEMO ?= demo

PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
CHOICE := $(shell echo "$(TORCH) $(TORCH_INDEX)" | cksum | cut -d ' ' -f 1)
BASE = $(VENV)/.torch-$(CHOICE)

.PHONY: help demo test lint clean
help:
	@sed -n '1,10s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.train
	$(VENV)/bin/mskd demo --output $(DEMO)

test: $(VENV)/.test
	@$(VENV)/bin/python Testing/system_libraries.py
	QT_QPA_PLATFORM=offscreen $(VENV)/bin/python -m pytest

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build Training/mskd.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A stamp file stands for each set of packages; pyproject.toml or another TORCH makes it anew.
$(BASE): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.10 to 3.13 is needed and none was found; install one, or give it: make PYTHON=/path/to/python3.12."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { echo "PYTHON=$(PYTHON) does not run, or is not Python 3.10 to 3.13; give one that is."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; install it (Debian, Ubuntu: apt-get install python3-venv)."; exit 1; }
	@if ls $(VENV)/.torch-* >/dev/null 2>&1; then rm -rf $(VENV); fi  # only an environment made here is thrown away
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	@touch $@

$(VENV)/.train $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: $(BASE)
	$(PIP) install --quiet --editable ".[$*]"
	@touch $@
