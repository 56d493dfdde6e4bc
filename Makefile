# Each target makes what it needs. PYTHON chooses the interpreter; TORCH_INDEX a package index that has CPU
# builds of torch, which on Linux saves several GB: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
TORCH_INDEX ?=
FUZZ_SECONDS ?= 600
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help env demo up test test-slow fuzz sbom docs chaos check types house format lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml constraints.txt
	@echo "Installing into .venv (about 2 GB, a minute or more)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

env: .venv/installed ## make or refresh .venv from the lock

demo: env ## the main job on real digits, over HTTP; writes demo/clusters.png
	@$(BIN)/clusterserve demo

up: env ## run the service on port 8000 until Ctrl-C
	@$(BIN)/clusterserve up

check: env ## lint, types, import contracts, file sizes, licences, known vulnerabilities
	@$(MAKE) --no-print-directory --jobs 2 types house

types: env ## the part of check that takes longest
	@$(BIN)/mypy app workers models clusterserve benchmarks

house: env ## the rest of check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/repo
	@$(BIN)/python tests/repo/audit.py

test: check ## everything CI runs
	@$(BIN)/python -m pytest -m "alone and not thorough" $$(grep -rl --include 'test_*.py' 'mark\.alone' tests)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/repo -m "not alone and not thorough" -n 3 --dist loadgroup --no-loadscope-reorder

test-slow: env ## recipes on real images, and what else takes long
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/chaos -m thorough

fuzz: env ## the contract with many more cases, and the readers of callers' bytes for FUZZ_SECONDS each; two hours
	@$(INSTALL) -c constraints.txt -e '.[fuzz]'
	@FUZZ_EXAMPLES=100 $(BIN)/python -m pytest tests/e2e/test_contract.py tests/e2e/test_hostile.py
	@for target in archives arrays idx parquet pictures batches multipart; do \
		$(BIN)/python -m tests.fuzz $$target $(FUZZ_SECONDS) .fuzz || exit 1; done

chaos: env ## every fault, kills at ten moments of each kind of job; an hour
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos --moments 10

sbom: env ## write sbom.json: everything installed, in CycloneDX
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application -o sbom.json $(BIN)/python

docs: env ## write docs/openapi.json, api.md, configs.md, errors.md and notes.md anew
	@PYTHONPATH=. $(BIN)/python docs/generate.py

format: env ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: env ## compile constraints.txt anew (maintainers; needs uv)
	uv pip compile --universal --python-version 3.11 --all-extras --custom-compile-command 'make lock' -c pin.in pyproject.toml -o constraints.txt

clean: ## remove the environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
