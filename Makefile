# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv when it is missing or the lock has changed.
PYTHON ?= python3.11
DATA ?= synthetic_products synthetic_identities
UV_VERSION := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)
RUN := .venv/bin/python
.DEFAULT_GOAL := help

.venv.stamp: requirements.lock
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	test -x .venv/bin/uv || .venv/bin/python -m pip install --quiet uv==$(UV_VERSION)
	.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: help demo test quick lab lint types browser bench lock
help:
	@echo "make demo [DATA='NAME ...']  the study, then the path of outputs/index.html"
	@echo "make test                    lint, types, all tests, every notebook"
	@echo "make quick                   the inner loop: no notebooks, no browser, no slow tests"
	@echo "make lab                     JupyterLab on the notebooks"
	@echo "make bench                   ratios against peers at published sizes, tens of minutes"
	@echo "make lint | types | lock     parts of the above; lock writes requirements.lock anew"

demo: .venv.stamp
	$(RUN) -m workbench study --data $(DATA)

test: lint types browser
	$(RUN) -m pytest

quick: lint
	$(RUN) -m pytest -m "not slow and not browser"

lab: .venv.stamp
	$(RUN) -m jupyter lab --notebook-dir notebooks

lint: .venv.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/nbstripout --verify $(NBSTRIPOUT) notebooks/*.ipynb

# One place for what is stripped: the pre-commit hook calls `make strip`.
NBSTRIPOUT := --keep-id --extra-keys "metadata.papermill cell.metadata.papermill metadata.widgets metadata.language_info.version"
.PHONY: strip
strip: .venv.stamp
	.venv/bin/nbstripout $(NBSTRIPOUT) notebooks/*.ipynb

types: .venv.stamp
	$(RUN) -m mypy

# Browser tests need Chromium: installed where we may, named loudly where we may not.
browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "NO CHROMIUM: the browser tests will be skipped; install the package chromium to run them."

bench: .venv.stamp
	$(RUN) -m workbench run 09_benchmark_speed -p sizes=published -p repetitions=5 --deadline 14400

lock:
	.venv/bin/uv pip compile pyproject.toml --group test --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet --output-file requirements.lock
