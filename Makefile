# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench wheel clean

demo: $(READY)
	$(BIN)/consilium demo

# Two tests at once share the cores; threads that wait by spinning would take them from each other
# (two trainings of two threads each on two cores: 305 against 170 ms a step; alone 95 against 100).
# One thread for each is cheaper still: a round of the demo takes 33 instead of 45 s of processor time.
test: export GOMP_SPINCOUNT ?= 1000
test: export OMP_NUM_THREADS ?= 1
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/metrics.py
	@echo "benchmarks/fingerprint.py and benchmarks/planner_v2.py need data and a peer: see their --help"

wheel: $(READY)
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

# torch first and alone: it must be the build that the constraints name, whatever the others ask for.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
