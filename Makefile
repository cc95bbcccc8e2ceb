# Two commands matter: `make demo` and `make test`. Each sets up all it needs. The page's tests in a
# browser, which take half as long as all others, are `make test-page`.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV ?= .venv
SERVE_VENV ?= .venv-serve
# onnxruntime-gpu where an NVIDIA driver answers, onnxruntime elsewhere; never both.
SERVE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo serve-gpu || echo serve)
BIN := $(VENV)/bin
DEMO_ARGS ?=
PYTEST_ARGS ?= -n 2

.PHONY: help setup check format test test-main test-serve test-page demo screenshot clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: pyproject.toml tools/system.sh
	tools/system.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar on --editable '.[dev,dictation,export,$(SERVE)]'
# The speaker network's weights; what else the package asks for reads sound, and is not needed.
	$(BIN)/python -m pip install --quiet --progress-bar on --no-deps Resemblyzer==0.1.4
# The speech detector's network; the package asks for torch, and only its file is used.
	$(BIN)/python -m pip install --quiet --progress-bar on --no-deps silero-vad==6.2.3
	touch $@

# The deployment: nothing but what a hospital server installs, and a test runner.
$(SERVE_VENV)/.ready: pyproject.toml tools/system.sh
	tools/system.sh $(PYTHON)
	$(PYTHON) -m venv $(SERVE_VENV)
	$(SERVE_VENV)/bin/python -m pip install --quiet --progress-bar on --editable '.[serve,serve-test]'
	touch $@

setup: $(VENV)/.ready ## install everything into .venv, and the commit hooks
	@if git rev-parse --git-dir >/dev/null 2>&1; then $(BIN)/pre-commit install >/dev/null; fi

check: $(VENV)/.ready ## format, lint and type-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: test-main test-serve ## run every test that needs no browser, the torch-free deployment's included

test-main: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m "not browser"

test-page: $(VENV)/.ready ## run the page's tests in a browser; what axe-core found is in build/axe.json
	tools/system.sh $(PYTHON) chromium chromium-headless-shell
	rm -f build/axe.json
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m browser

test-serve: $(VENV)/.ready $(SERVE_VENV)/.ready
	$(BIN)/python tools/make_test_bundle.py build/test-bundle
	MEDFUSE_TEST_BUNDLE=build/test-bundle $(SERVE_VENV)/bin/python -m pytest tests/torchfree

demo: $(VENV)/.ready ## make a cohort, train, export, verify and open the page (DEMO_ARGS=--no-serve stops before it)
	$(BIN)/medfuse demo $(DEMO_ARGS)

screenshot: $(VENV)/.ready ## take the pictures of the running page that the README and docs have
	tools/system.sh $(PYTHON) chromium chinese
	$(BIN)/python tools/pictures.py

clean: ## remove what the targets made
	rm -rf $(VENV) $(SERVE_VENV) build demo runs
