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

# tritonserver's environment, for the tests that ask a real one: apart, since it wants an older numpy.
.venv-triton.stamp: requirements-triton.lock .venv.stamp
	test -x .venv-triton/bin/python || $(PYTHON) -m venv .venv-triton
	.venv/bin/uv pip sync --quiet --python .venv-triton/bin/python --require-hashes requirements-triton.lock
	touch $@

.PHONY: help demo test test-all quick lab lint types browser triton bench lock
help:
	@echo "make demo [DATA='NAME ...']  the study, then the path of outputs/index.html"
	@echo "make test                    lint, types, tests, every notebook"
	@echo "make test-all                what is dear and seldom breaks, too"
	@echo "make quick                   the inner loop: no notebooks, no browser, no slow tests"
	@echo "make lab                     JupyterLab on the notebooks"
	@echo "make bench                   ratios against peers at published sizes, tens of minutes"
	@echo "make lint | types | lock     parts of the above; lock writes requirements.lock anew"

demo: .venv.stamp
	$(RUN) -m workbench study --data $(DATA)

# A worker a core, one thread each: two libraries that spin for the same cores take several times as long.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 4 --dist worksteal
test: lint types browser triton
	$(PYTEST) -m "not nightly"

test-all: lint types browser triton
	$(PYTEST)

quick: lint
	$(RUN) -m pytest -m "not slow and not browser and not nightly"

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

# Only Linux on x86_64 has the server's wheel; elsewhere its tests are skipped, and say so. A Python without a shared library
# (Debian's) needs libpython, which is installed where we may and named where we may not.
triton:
	@if test "$$(uname -sm)" = "Linux x86_64"; then $(MAKE) --no-print-directory .venv-triton.stamp && \
	  { .venv/bin/python -m workbench.export.triton_server --check || { test "$$(id -u)" = 0 && \
	    command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq --no-install-recommends libpython3.11 \
	    libstdc++6 zlib1g >/dev/null && .venv/bin/python -m workbench.export.triton_server --check; } || \
	    echo "NO TRITONSERVER: its tests will be skipped; see the line above for what is missing."; }; \
	else echo "NO TRITONSERVER for $$(uname -sm): its tests will be skipped."; fi

bench: .venv.stamp
	$(RUN) -m workbench run 09_benchmark_speed -p sizes=published -p repetitions=5 --deadline 14400

lock:
	.venv/bin/uv pip compile pyproject.toml --group test --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet --output-file requirements.lock
	.venv/bin/uv pip compile --group pyproject.toml:triton --python-version 3.11 --python-platform x86_64-manylinux_2_35 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements-triton.lock
