PYTHON ?= python3
PYTHON_LOWEST ?= python3.10
PYTHON_NEWEST ?= python3.13
BIN := .venv/bin
# constraints.txt pins torch, so that everyone develops on the same release
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# bytecode is compiled on first use and kept, whatever the environment says: most of what is
# installed is never imported, and tests start many processes
INSTALL += --no-compile
export PYTHONDONTWRITEBYTECODE :=

# the tests of a module run in one process, since they share objects that are slow to make
PARALLEL := --numprocesses 2 --dist loadscope --no-loadscope-reorder

.PHONY: help demo test test-fast lint types tables docs build test-lowest test-newest bench soak gpu gpu-table examples screenshots clean
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.demo ## Train on scikit-learn's digits and show what the four families for classifiers measure (a minute)
	$(BIN)/python -m lightning_nc

test: .venv/.dev ## Run all tests and doctests, in two processes
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-fast: .venv/.dev ## Run the tests that take seconds
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

lint: .venv/.dev ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev ## Check types
	$(BIN)/mypy

tables: .venv/.dev ## Write the tables of quantities, and of projects, in docs/ and docstrings
	$(BIN)/python docs/make_tables.py
	$(BIN)/python docs/make_reproductions.py
	$(BIN)/python -m tests.projects.table

docs: .venv/.dev ## Build the site of the documents into .artifacts/site; a warning is an error
	$(BIN)/python docs/make_site.py

build: .venv/.dev ## Build what is released into dist/, and check it
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

# an environment of its own each, 8 GB: a bare torch brings CUDA's libraries, unless PIP_EXTRA_INDEX_URL
# names an index with builds for CPUs
test-lowest: ## Run the fast tests on Python 3.10 with the lowest versions that are supported
	$(PYTHON_LOWEST) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --no-compile --constraint constraints-lowest.txt --editable ".[dev]"
	.venv-lowest/bin/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

test-newest: ## Run the fast tests on Python 3.13 with the newest version of everything
	$(PYTHON_NEWEST) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --no-compile --upgrade --editable ".[dev]"
	.venv-newest/bin/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

bench: .venv/.dev ## Measure the cost of measurements, as ratios within one run
	$(BIN)/python -m tests.benchmarks.measurement_cost
	$(BIN)/python -m tests.benchmarks.fuzziness_routes
	$(BIN)/python -m tests.benchmarks.many_classes
	$(BIN)/python -m tests.benchmarks.layer_peeled
	$(BIN)/python -m tests.benchmarks.gradient_kernel
	$(BIN)/python -m tests.benchmarks.figures
	$(BIN)/python -m tests.benchmarks.imports

soak: .venv/.dev ## Measure 5,000 times in one run, and print what grows (ten minutes)
	$(BIN)/python -W ignore -m tests.benchmarks.soak

gpu: ## Check the package's guarantees on this machine's CUDA device (on a CPU at small sizes)
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m tests.gpu --output .artifacts/gpu.json

gpu-table: ## Write docs/benchmarks.md from the results of `make gpu` that are kept in docs/benchmarks/
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m tests.gpu.table docs/benchmarks/*.json

# a claim that is not found makes an example fail, and the others run all the same
examples: .venv/.dev ## Reproduce the talks' and papers' figures, and write docs/reproductions.md (several hours)
	-$(BIN)/python examples/equi_separation_fashion_mnist.py
	-$(BIN)/python examples/equi_separation_panels.py
	-$(BIN)/python examples/equi_separation_architectures.py
	-$(BIN)/python examples/equi_separation_bert.py
	-$(BIN)/python examples/equi_separation_settings.py
	-$(BIN)/python examples/equi_separation_depth.py
	-$(BIN)/python examples/equi_separation_freezing.py
	-$(BIN)/python examples/layer_peeled_norms.py
	-$(BIN)/python examples/neural_collapse.py
	-$(BIN)/python examples/simplex_symmetry.py
	-$(BIN)/python examples/hull_criterion.py
	-$(BIN)/python examples/minority_collapse_theory.py
	-$(BIN)/python examples/minority_collapse_fashion_mnist.py
	-$(BIN)/python examples/local_elasticity_geometry.py
	-$(BIN)/python examples/local_elasticity_digits.py
	-$(BIN)/python examples/local_elasticity_classes.py
	-$(BIN)/python examples/local_elasticity_clustering.py
	-$(BIN)/python examples/label_aware_kernel.py
	-$(BIN)/python examples/locally_elastic_stability.py
	-$(BIN)/python examples/neurashed.py
	-$(BIN)/python examples/next_token_law.py
	$(BIN)/python docs/make_reproductions.py

screenshots: .venv/.dev ## Take pictures of the site, TensorBoard, notebooks and a report in headless Chromium
	REQUIRE_CHROMIUM=1 $(BIN)/python -m pytest -q -k browser tests/test_site.py tests/test_notebooks.py \
		tests/report/test_screenshot.py tests/callbacks/test_loggers_tensorboard_server.py
	rm -rf .artifacts/demo
	$(BIN)/python -m lightning_nc --output .artifacts/demo
	$(BIN)/python -m lightning_nc report .artifacts/demo/digits --output .artifacts/demo.html
	$(BIN)/python -m tests.browser .artifacts/demo.html 1200,1920 docs/figures/report.png

clean: ## Remove the virtual environment and caches
	rm -rf .venv .venv-lowest .venv-newest .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable ".[demo]"
	touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable ".[dev]"
	touch $@
