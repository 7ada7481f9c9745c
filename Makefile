# The paper, from nothing: `make paper`. Needs python3 (3.11 or newer), make and a package index.
# Figures and tables appear in figures/<profile>/<cohort>/, the notebooks as pages in build/.

PROFILE     ?= laptop
COHORT      ?= synthetic
JOBS        ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
PYTHON      ?= python3
TORCH_INDEX ?=
LUSBIO_DATA ?=
WIDTH       ?=

# The paper's notebooks in the order they run: look at the data, train, then read what was trained.
PAPER := 01_cohort 02_biomarkers 00_start_here 03_experts 04_generalization 05_agreement 06_another_backbone 10_closer_look
# About the simulator, so only where its patients are.
ifeq ($(COHORT),synthetic)
PAPER += 08_simulator
endif
# Table 1 on real patients, with networks that come from simulated ones: it trains too.
ifeq ($(COHORT),covid_blues)
PAPER += 07_real_patients
endif
# About splits that lie, shown on POCOVID: it trains too.
ifeq ($(COHORT),pocovid)
PAPER += 09_leakage
endif

# Companions: notebooks about neighbouring papers of the same group. They train by themselves.
COMPANIONS := $(basename $(notdir $(wildcard $(patsubst %,notebooks/%.ipynb,11_dense_labels 12_change 13_pretraining))))

.DEFAULT_GOAL := help
.PHONY: help paper companions smoke site model test test-all lint dist bench clean env FORCE
ifneq ($(PROFILE),smoke)
.NOTPARALLEL: # trainings spread over JOBS processes themselves; in miniature notebooks stand side by side instead
endif
unexport MPLBACKEND # agg would leave the notebooks without figures
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
ifneq ($(strip $(LUSBIO_DATA)),)
export LUSBIO_DATA
endif

ifneq ($(strip $(WIDTH)),)
export LUSBIO_WIDTH := $(WIDTH)
endif

# --- The environment: the active one if it has what the notebooks import, else .venv, made once ---
STACK := torch pytorch_lightning sklearn pandas seaborn imageio av pooch safetensors skops \
         pydicom papermill nbconvert ipykernel mistune anywidget
HAS_STACK = import sys; from importlib.util import find_spec; \
            sys.exit(sys.version_info < (3, 11) or not all(map(find_spec, sys.argv[1:])))

ifeq ($(shell $(PYTHON) -c '$(HAS_STACK)' $(STACK) 2>/dev/null && echo yes),yes)
RUN := $(PYTHON)
ENVIRONMENT :=
else
RUN := .venv/bin/python
ENVIRONMENT := .venv/ready
endif

help: ## Show this list
	@echo "usage: make TARGET [PROFILE=smoke|laptop|paper] [COHORT=synthetic|covid_blues|pocovid|FOLDER] [JOBS=N]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-15s %s\n", $$1, $$2}'
	@echo
	@echo "now: PROFILE=$(PROFILE) COHORT=$(COHORT) JOBS=$(JOBS), Python: $(RUN)"
	@echo "also: WIDTH=64 for the published width, TORCH_INDEX=URL of another torch build, LUSBIO_DATA=folder of the public cohorts, PYTHON=python3.12"

env: $(ENVIRONMENT) ## Make .venv, unless the active environment already has everything
	@$(RUN) -c 'import sys, torch; print(f"{sys.executable}: Python {sys.version.split()[0]}, torch {torch.__version__}")'

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "lusbio needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	    echo "With another one installed: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make environments. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@echo "Making .venv (once; about 2 GB, more with a CUDA build of torch)"
	.venv/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --no-deps $(TORCH_INDEX:%=--index-url %) -c constraints.txt torch
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,label]'
	@touch $@

# --- The paper ---
SAFE_COHORT := $(shell basename '$(subst ','\'',$(COHORT))' | \
                       sed 's/[^A-Za-z0-9_-][^A-Za-z0-9_-]*/_/g; s/^[_-]*//; s/[_-]*$$//')
BUILD       := $(or $(LUSBIO_BUILD),build)
OUT         := $(BUILD)/$(PROFILE)/$(SAFE_COHORT)/notebooks
PAGE        := $(BUILD)/$(PROFILE)/$(SAFE_COHORT)/paper.html
PACKAGE     := $(wildcard lusbio/*.py lusbio/*/*.py lusbio/words/*.toml lusbio/*/*.csv lusbio/*/*/*.csv lusbio/*/*.mplstyle)

paper: $(PAGE) ## Every table and figure: trains (once), runs the notebooks
	@echo "The paper: $(PAGE), with tables and figures in figures/$(PROFILE)/ and the notebooks beside it"

companions: $(COMPANIONS:%=$(OUT)/%.ipynb) ## Neighbouring papers: dense labels, change, pretraining without labels
	@if [ -f $(PAGE) ]; then $(RUN) -m lusbio.publish.page --profile $(PROFILE) --cohort '$(subst ','\'',$(COHORT))'; fi
ifneq ($(and $(filter paper,$(MAKECMDGOALS)),$(filter companions,$(MAKECMDGOALS))),)
companions: | paper # side by side, and the page at the end has both
$(OUT)/13_pretraining.ipynb: | $(patsubst %,$(OUT)/%.ipynb,$(filter 02_% 08_%,$(PAPER))) # they count their runs first
endif

smoke: ## The whole paper and its companions in miniature, synthetic, to see that they work
	@$(MAKE) --no-print-directory -j$(JOBS) paper companions PROFILE=smoke COHORT=synthetic JOBS=1

# An executed notebook is made again when its source, the package or the data changes. Trainings are
# kept by what decides their numbers, so "again" takes seconds unless one of those changed.
$(patsubst %,$(OUT)/%.ipynb,$(PAPER) $(COMPANIONS)): \
    $(OUT)/%.ipynb: notebooks/%.ipynb $(PACKAGE) $(OUT)/inputs.txt $(ENVIRONMENT)
	@list='$(if $(filter $*,$(COMPANIONS)),$(COMPANIONS),$(PAPER))'; set -- $$list; \
	    echo "[$$(printf '%s\n' $$list | grep -nx '$*' | cut -d: -f1)/$$#] $*"
	@$(RUN) -m lusbio.publish.run_notebook $< --output $@ \
	    --profile $(PROFILE) --cohort '$(subst ','\'',$(COHORT))' --jobs $(JOBS)

# 02 says in runs.txt what it has trained: a run that someone has removed since makes it train again.
TRAINED := $(shell cat $(BUILD)/$(PROFILE)/$(SAFE_COHORT)/runs.txt 2>/dev/null)
$(OUT)/02_biomarkers.ipynb: $(if $(filter-out $(wildcard $(BUILD)/runs/*/run.json),$(TRAINED:%=$(BUILD)/runs/%/run.json)),FORCE)
$(OUT)/02_biomarkers.ipynb: | $(OUT)/01_cohort.ipynb
$(patsubst %,$(OUT)/%.ipynb,$(filter-out 01_cohort 02_biomarkers,$(PAPER))): $(OUT)/02_biomarkers.ipynb

# Table 3 takes the mixed networks that 07 trains.
ifeq ($(COHORT),covid_blues)
$(OUT)/04_generalization.ipynb: | $(OUT)/07_real_patients.ipynb
endif

# One page with everything that the notebooks made, in the paper's order.
$(PAGE): $(PAPER:%=$(OUT)/%.ipynb) $(wildcard lusbio/publish/page.*)
	@$(RUN) -m lusbio.publish.page --profile $(PROFILE) --cohort '$(subst ','\'',$(COHORT))'

# Which data and initial weights: rewritten only when they change. Of files, names, sizes and times count.
# Notebooks about other cohorts look at the public ones too.
DATA    := $(or $(LUSBIO_DATA),$(BUILD)/data)
# The + lets `make -n paper` look too, and so tell the truth.
$(OUT)/inputs.txt: FORCE
	+@cohort='$(subst ','\'',$(COHORT))'; fresh=$@.$$$$.tmp; \
	    mkdir -p $(OUT) && { echo "cohort $$cohort"; echo "data $(LUSBIO_DATA)"; \
	      echo "weights $(LUSBIO_WEIGHTS) $(LUSBIO_WEIGHTS_I3D) $(WIDTH)"; \
      for place in "$$cohort" '$(subst ','\'',$(DATA))/covid_blues' '$(subst ','\'',$(DATA))/pocovid' \
          '$(subst ','\'',$(DATA))/covidx_us'; do \
        if [ -d "$$place" ]; then (cd "$$place" && pwd && ls -lRn | cksum); fi; done; } > $$fresh || { \
	      echo "$(BUILD) cannot be written: make room, or name another build folder with LUSBIO_BUILD" >&2; exit 1; }; \
	    if cmp -s $$fresh $@; then rm $$fresh; else mv $$fresh $@; fi

REPOSITORY ?=
site: $(PAGE) ## The site in build/site/: paper, notebooks, API, cards (REPOSITORY=owner/name for links to Colab)
	@$(RUN) docs/build.py --profile $(PROFILE) --repository '$(REPOSITORY)'

# The small model that a release carries: trained, listed with its checksums, and small enough to be committed.
MODEL ?= model
model: $(ENVIRONMENT) ## The model that comes with lusbio, learnt from simulated patients alone
	$(RUN) -m lusbio.cli train --final --cohort synthetic --profile $(PROFILE) --jobs $(JOBS) --out $(MODEL)
	@$(RUN) -c 'import sys, pathlib, lusbio.cohorts.download as d; d.write_registry(pathlib.Path(sys.argv[1]), "model")' $(MODEL)
	@du -sh $(MODEL)

# --- For those who change the code ---
STRIP = --keep-id --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution \
        cell.metadata.exception metadata.language_info.version"
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

# One file of tests after the other on each of JOBS processes, in the order of tests/conftest.py.
PYTEST = $(RUN) -m pytest -q -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(ENVIRONMENT) ## Unit tests, doctests, the notebooks' anatomy, the paper in miniature
	$(PYTEST) -m "not slow"

test-all: $(ENVIRONMENT) ## The same, and what takes minutes: a second paper, real patients, clusters
	$(PYTEST)

lint: $(ENVIRONMENT) ## Style of code and notebooks; no outputs committed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) tests/notebook_anatomy.py
ifneq ($(NOTEBOOKS),)
	$(RUN) -m nbstripout --verify $(STRIP) $(NOTEBOOKS)
endif

# The wheel is made from the unpacked sdist: nothing stale gets in, and the sdist has what it takes.
dist: $(ENVIRONMENT) ## Wheel and sdist in build/dist/
	rm -rf $(BUILD)/dist && mkdir -p $(BUILD)/dist
	$(RUN) -c 'import sys; from setuptools.build_meta import build_sdist as build; build(sys.argv[1])' $(BUILD)/dist
	$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(BUILD)/dist $(BUILD)/dist/*.tar.gz
	@ls $(BUILD)/dist

bench: $(ENVIRONMENT) ## Throughput and scaling, one script after the other
	@found=; for script in benchmarks/[!_]*.py; do [ -f "$$script" ] || continue; found=yes; \
	    echo "== $$script"; $(RUN) "$$script" || exit 1; done; \
	    [ -n "$$found" ] || echo "There is no script in benchmarks/ yet."

clean: ## Remove build/: cohorts, trainings, executed notebooks. Keeps .venv and figures/
	rm -rf build
	@echo "Kept: .venv (remove it by hand to make it again) and figures/"
