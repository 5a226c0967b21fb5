# make demo    installs into .venv and runs the whole way on the embedded city
# make test    installs into .venv and runs the tests; shapes of the engine's arrays are checked
#              on the way (tests/shape_checks.py), unless JAXTYPING_DISABLE=1 is set
# make check   lint, types, import contract, tests
# make torture tries for hours to break it (docs/reliability.md); TORTURE="--quick --seed 1" says
#              how much of it
# make pictures draws the pages that the documents show
# make fuzz    hunts in every reader of strangers' files, SECONDS in each (default 60)
# make audit   looks the pinned packages up in an advisory database
# make licences  writes docs/licences.md from what is installed
# make lock    pins the versions that .venv holds
# VENV=DIR     another environment; PYTHON=NAME another Python to make it with
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.hoserkd-installed
SECONDS ?= 60
PYTEST ?= -n 2 --dist loadfile
TORTURE ?=
export OMP_NUM_THREADS ?= 1

.PHONY: demo install test torture check lint types imports fuzz audit licences lock pictures clean

demo: $(STAMP)
	env -u OMP_NUM_THREADS $(BIN)/hoserkd demo

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock .ci/install
	.ci/install $(VENV)
	touch $@

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST)

torture: $(STAMP)
	$(BIN)/python -m torture $(TORTURE)
	$(BIN)/python -m pytest -m torture

check: lint types imports test

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

lock:
	$(BIN)/python .ci/lock.py

fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)

audit: $(STAMP)
	$(BIN)/python .ci/audit.py

licences: $(STAMP)
	$(BIN)/python .ci/licences.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

pictures: $(STAMP)
	$(BIN)/hoserkd demo --output build/demo
	$(BIN)/hoserkd tui --store build/demo/store --data-dir build/demo --run distilled \
	  --screen run --size 132x40 --screenshot docs/pictures/run.png
	$(BIN)/hoserkd tui --store build/demo/store --data-dir build/demo --run distilled \
	  --screen map --size 132x40 --screenshot docs/pictures/map.png
	$(BIN)/python docs/pictures/draw_trips.py build/demo docs/pictures/trips.png
