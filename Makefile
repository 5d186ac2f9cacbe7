# Everything works on a fresh machine with Python 3.11+ and make: the first target makes a virtual environment.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

# threads that spin while they wait slow each other down on a CPU that is not idle
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check format clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements.txt requirements-timm.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## make the virtual environment and install the requirements

demo: $(VENV)/.installed ## make demo data, then train, test, visualise and compare seven models (about 10 minutes)
	$(RUN) -m tools.make_demo_data --output datasets/demo
	PYTHON="$(abspath $(RUN))" DATAROOT=datasets/demo TESTROOT=datasets/demo/test OUTPUT_DIR=demo CLASSES= \
	BATCH_SIZE=16 LR=0.002 EPOCHS=8 DELR_FREQ=1 NUM_SAMPLES=20 EXTRA_TRAIN_ARGS="--no_resize --cropSize 64" \
	EXTRA_VISUALIZE_ARGS="--num_maps 1" \
	./run_multiscale_experiments.sh

test: $(VENV)/.installed-dev ## run the tests (a few minutes)
	$(RUN) -m pytest

test-all: $(VENV)/.installed-dev ## run all tests, the long ones too
	$(RUN) -m pytest -m "slow or not slow"

check: $(VENV)/.installed-dev ## format, lint and types, without changing anything
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(VENV)/.installed-dev ## put the code into the project's format
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean: ## remove the virtual environment and everything the demo wrote
	rm -rf $(VENV) datasets/demo demo
