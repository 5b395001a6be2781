# The two commands that need nothing before them: `make train` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev train test test-slow test-oldest test-gpu check docs bench gpu gpu-results pretrained board clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "genlab needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 1; }
	@echo "Installing genlab into $(VENV) (a few minutes the first time: torch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@$(BIN)/python -c 'import torch, torchvision' || { echo "torch and torchvision do not work together; see constraints.txt"; exit 1; }
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) --editable '.[dev]'
	@touch $@

setup: $(VENV)/installed ## install genlab into .venv

setup-dev: $(VENV)/installed-dev

train: setup ## train DRAW on the embedded digits: minutes on two cores
	@$(BIN)/genlab train model=draw

# One thread a process: two test processes on two cores would only fight over them.
test: setup-dev ## the tests, under four minutes on two cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

test-slow: setup-dev ## the tests that take longer, and every test of faults: the whole table
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --jaxtyping-packages=genlab,beartype.beartype -m '(slow or fault) and not gpu' -n 2 --dist worksteal -q

test-oldest: ## the tests with the oldest versions that pyproject.toml allows, in .venv-oldest
	@test -x .venv-oldest/bin/uv || { $(PYTHON) -m venv .venv-oldest && .venv-oldest/bin/python -m pip install --quiet uv; }
	@.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable '.[dev]'
	@# Without those that are of the pinned versions: the list of them, and schemas as pydantic writes them.
	@OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal -q --deselect tests/test_dependencies.py --deselect tests/config/test_json_schema.py::test_the_files_in_the_tree_are_those_that_genlab_schema_writes

test-gpu: setup-dev ## the tests that need a CUDA device (skipped without one)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu -q

check: setup-dev ## lint, format, types, import contracts, the site of docs/, known vulnerabilities of dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@$(BIN)/python .ci/audit.py

docs: setup-dev ## the documentation as a site in docs/_build; a warning is an error
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

bench: setup-dev ## a table of ratios, one thread: ours beside the straightforward way; ONLY="loop gan", WRITE=FILE
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(ONLY) $(if $(WRITE),--write $(WRITE))

gpu: setup-dev ## what only a CUDA device shows, within eight minutes: a report in benchmarks/reports
	@$(BIN)/python -m benchmarks.gpu

gpu-results: setup-dev ## train published experiments on a CUDA device for MINUTES=9, resuming what is there
	@$(BIN)/python -m benchmarks.gpu_results --minutes $(or $(MINUTES),9) $(if $(DATA),--data $(DATA))

pretrained: setup ## export the finished quick twins of outputs/, or make those of NAMES="draw_mnist_quick ..."
	@$(BIN)/genlab pretrained $(or $(NAMES),--all)

board: setup ## TensorBoard on outputs/
	@$(BIN)/genlab board

clean: ## remove the environment and every cache; outputs/ stays
	rm -rf $(VENV) .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
