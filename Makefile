# Everything a user types. `make help` lists the targets; every recipe runs from the repository's root.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PROFILE ?= quick
ONLY ?=
PARAMS ?=
BUDGET ?=
VENV ?= .venv
BASE_PYTHON ?= python3
RESULTS := $(or $(LT_RESULTS),results)
DATA := $(or $(LT_DATA),data)/.fetched
export WORKERS SCHEDULER FRESH PRECISION PARAMS
# With a budget the notebooks draw what `train` left them in time, and train nothing themselves.
export LT_DRAW_ONLY := $(BUDGET)
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

NOTEBOOKS := $(if $(ONLY),$(ONLY),$(basename $(notdir $(wildcard notebooks/*.ipynb))))
PROFILES := smoke quick evening overnight paper
COMMITTED := evening overnight paper
$(if $(filter-out $(PROFILES) $(PROFILES:%=%-custom),$(PROFILE))$(filter-out 1,$(words $(PROFILE))),$(error PROFILE=$(PROFILE): no such profile; choose one of $(PROFILES)))
LABEL := $(strip $(PROFILE))$(if $(PARAMS),-custom)
EXECUTED := $(NOTEBOOKS:%=$(RESULTS)/$(LABEL)/%.ipynb)
$(foreach name,$(ONLY),$(if $(wildcard notebooks/$(name).ipynb),,$(error ONLY=$(name): no such notebook; choose from $(basename $(notdir $(wildcard notebooks/*.ipynb))))))

# PYTHON=... is used as it is. Otherwise the environment VENV is used: ours (.venv, made and filled here) or one of yours.
ifdef PYTHON
READY :=
else ifeq ($(VENV),.venv)
PYTHON := .venv/bin/python
READY := .venv/.ready
else
PYTHON := $(VENV)/bin/python
READY :=
endif

.PHONY: always reproduce train cost figures redraw lab bench test data setup clean help readme lock check

reproduce: $(if $(BUDGET),train) $(EXECUTED)  ## execute the notebooks, make every table and figure, sum up [PROFILE=smoke|quick|evening|overnight|paper ONLY=01_mask_criteria PARAMS="seeds=5 rounds=9" BUDGET=30m]
	@$(PYTHON) -m lt_utils summary --profile $(LABEL)

# Of committed results a clone can't tell whether they are whole: those notebooks are always executed.
$(RESULTS)/$(LABEL)/%.ipynb: notebooks/%.ipynb $(wildcard lt_utils/*.py notebooks/*.py) requirements.txt $(if $(PARAMS)$(filter $(COMMITTED),$(PROFILE)),always) | $(DATA)
	@$(PYTHON) notebooks/execute.py $* --profile $(PROFILE) $(if $(PARAMS),-p "$$PARAMS" --among $(NOTEBOOKS))

train: | $(DATA)  ## do the trainings of all notebooks, the most valuable first; draw nothing [BUDGET=30m]
	@$(PYTHON) -m lt_utils train --profile $(PROFILE) $(BUDGET:%=--budget %) $(ONLY:%=--only %) $(if $(PARAMS),-p "$$PARAMS")

cost: | $(DATA)  ## say what is still to be trained, and how long that takes on this machine (measured, once)
	@$(PYTHON) -m lt_utils cost --profile $(PROFILE) $(ONLY:%=--only %) $(if $(PARAMS),-p "$$PARAMS")

figures: $(READY)  ## redraw the figures of PROFILE from its tables; nothing is trained
	@$(PYTHON) -m lt_utils figures --profile $(PROFILE)

redraw: check  ## execute the committed notebooks again from their own tables; nothing is trained [ONLY=01_mask_criteria]
	@$(PYTHON) notebooks/redraw.py $(ONLY:%=--only %)

lab: check  ## open the notebooks in JupyterLab
	@$(PYTHON) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

bench: check  ## time the stacked trainer beside ordinary PyTorch loops, and profile it; writes results/bench/
	@$(PYTHON) -m bench
	@KINETO_LOG_LEVEL=5 $(PYTHON) -m bench.profile

test: check  ## lint and test
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m pytest -q

data: check

check: $(READY) $(DATA)

$(DATA): | $(READY)
	@$(PYTHON) -m lt_utils data
	touch $@

setup: $(READY)  ## make .venv and install the hashed requirements

.venv/.ready: requirements.txt
	@echo "setting up .venv (a few GB, once)"
	$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: name one with BASE_PYTHON=...")'
	[ ! -L .venv ] || rm .venv  # a link: `--clear` would empty what it points to
	$(BASE_PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/python -m uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.txt
	.venv/bin/python -c 'import pathlib, site; (pathlib.Path(site.getsitepackages()[0]) / "lt_utils.pth").write_text("$(CURDIR)\n")'
	PYTHONDONTWRITEBYTECODE= .venv/bin/python -c 'import lt_utils.__main__, ipykernel.kernelapp, papermill, pytest'  # compiles them, once
	touch $@

readme: $(READY)  ## bring README.md up to date with what is committed, and results/reference with `quick` if it is there whole
	@$(PYTHON) -m lt_utils readme

lock: $(READY)  ## rewrite requirements.txt from requirements.in
	.venv/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate requirements.in -o requirements.txt

clean:  ## remove what `make reproduce` made (results, figures, finished runs); keep .venv, data, and what is committed
	rm -rf {results,figures}/{smoke,quick,*-custom} results/runs

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile
	echo "PYTHON=/path/to/python or VENV=\$$CONDA_PREFIX use an environment of yours; BASE_PYTHON=python3.12 makes .venv with another Python."
	echo "WORKERS=cuda:0,cuda:1 trains in a process per device, SCHEDULER=tcp://host:8786 on a dask.distributed cluster; FRESH=1 ignores the results that are committed, PRECISION=fp32 (or bf16, or PRECISION='fc=bf16 conv2=fp32') does without the machine's own choice."
	echo "LT_DATA=/path moves the data folder, LT_STORE=/path the finished runs."
