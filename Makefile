# make run   : everything in quick size on real E. coli data; ends with the path of the report
# make check : lint, types, import contract, fast tests; what to run before every commit
# make test  : install what the tests need, then all of it
# make controls : run the simulated controls of the verdict and put their record into the package
# make setup : install only (then: .venv/bin/genesplice lab)
# make docs  : the pages of docs/ with the API reference, into site/
# make results, make pictures, make licences : README's tables and pictures, docs/licences.md again
#
# TORCH=cpu (or cu126, ...) on the first of them installs that build of torch: a folder of the
# index of pytorch.org. Without it, Linux gets the default wheels, with several GB of CUDA.

PYTHON ?= python3
TORCH ?=
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

install_torch = $(if $(TORCH),$(PIP) install --quiet --constraint constraints.txt --no-deps \
	--index-url https://download.pytorch.org/whl/$(TORCH) torch)

# What aligns related genomes: compiled here where there is no wheel, and left out where that fails.
install_mappy = @$(PIP) install --quiet --constraint constraints.txt mappy || echo

.PHONY: setup dev browser run check test lint bench controls docs results pictures licences

setup: $(VENV)/.base
dev: $(VENV)/.dev

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(install_torch)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	$(install_mappy) "no C compiler: relatives cannot be aligned (--relatives DIR)"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(install_torch)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev,docs,tracks]"
	$(install_mappy) "no C compiler: the tests that align relatives will be skipped"
	touch $@ $(VENV)/.base

# Chromium for the browser tests: from Debian's packages where we may install them.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	{ command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || \
	echo "no Chromium: the browser tests will be skipped"

run: setup
	$(BIN)/genesplice run --preset quick

bench: dev
	$(BIN)/python -m benchmarks --out reports/bench.json

results: dev
	$(BIN)/python -m benchmarks.results

pictures: dev browser
	$(BIN)/python -m benchmarks.pictures reports

licences: dev
	$(BIN)/python -m benchmarks.licences

docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -W ignore -m mkdocs build --strict

controls: setup
	rm -rf reports/controls
	$(BIN)/genesplice controls --count 1 --out reports/controls
	cp reports/controls/seed0/controls.json genesplice/context/controls.json

lint: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: dev lint
	$(PYTEST) -m "not slow and not browser and not notebook"

test: dev browser lint
	$(PYTEST)
