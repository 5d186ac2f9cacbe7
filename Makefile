# Everything works on a fresh machine with Python 3.11+ and make: the first target makes a virtual environment.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

# threads that spin while they wait slow each other down on a CPU that is not idle
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help install lock demo demo-first demo-second browser test test-all test-ci soak fuzz coverage check format bench bench-gpu check-gpu pretrained clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# no file is installed whose SHA-256 is not in the lock
PIP_INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes

$(VENV)/.installed: requirements/lock.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements/lock.txt
	@touch $@

$(VENV)/.installed-dev: requirements/dev-lock.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements/dev-lock.txt
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## make the virtual environment and install the requirements

# for every system and every Python from 3.11 on; what is locked stays as it is unless LOCK_FLAGS=--upgrade
COMPILE = "$$uv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" $(LOCK_FLAGS)

lock: ## lock what the requirements need, with the hashes of all files (uv gets an environment of its own)
	@uv=$$(mktemp -d) && trap 'rm -rf "$$uv"' EXIT && $(PYTHON) -m venv "$$uv" && \
	"$$uv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9 && \
	$(COMPILE) requirements/dev.txt --output-file requirements/dev-lock.txt && \
	$(COMPILE) requirements.txt --constraint requirements/dev-lock.txt --output-file requirements/lock.txt

DEMO = PYTHON="$(abspath $(RUN))" DATAROOT=datasets/demo TESTROOT=datasets/demo/test OUTPUT_DIR=demo CLASSES= \
	BATCH_SIZE=16 LR=0.001 EPOCHS=9 DELR_FREQ=1 NUM_SAMPLES=20 EXTRA_TRAIN_ARGS="--no_resize --cropSize 64" \
	EXTRA_TEST_ARGS="--precision auto" EXTRA_VISUALIZE_ARGS="--precision auto --num_maps 2"

demo: $(VENV)/.installed ## make demo data, then train, test, visualise and compare seven models (about 10 minutes)
	$(RUN) -m tools.make_demo_data --output datasets/demo
	@# two experiments at a time on one thread each are faster than one after the other on two threads
	@$(MAKE) --no-print-directory --keep-going --jobs=2 demo-first demo-second
	$(DEMO) ./run_multiscale_experiments.sh # runs what is not finished, and compares

demo-first:
	@OMP_NUM_THREADS=1 EXPERIMENTS="baseline_single_scale ablation_4scales control_equal_capacity" \
	$(DEMO) ./run_multiscale_experiments.sh 2>&1 | sed 's/^/[1] /'

demo-second:
	@OMP_NUM_THREADS=1 EXPERIMENTS="multiscale_3scales ablation_2scales_coarse ablation_2scales_fine control_1branch" \
	$(DEMO) ./run_multiscale_experiments.sh 2>&1 | sed 's/^/[2] /'

# one thread for each of two processes, and compiled modules kept for the many that tests start; worksteal leaves most tests of a file
# together, which share what they have trained
PYTEST = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist worksteal

test: $(VENV)/.installed-dev ## run the tests (a few minutes)
	$(PYTEST)

browser: ## Debian's Chromium for the tests of the web page, where it is missing (as root; they skip without)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install --yes --no-install-recommends chromium; } || \
	echo "no Chromium: the tests of the web page will be skipped (Debian, Ubuntu: sudo apt install chromium)"

test-all: $(VENV)/.installed-dev ## run the long tests, too
	$(PYTEST) -m "not ci"

test-ci: $(VENV)/.installed-dev browser ## run the tests of supply chain, web page in a browser, work without a network
	$(PYTEST) -m ci

fuzz: $(VENV)/.installed-dev ## many damaged images and checkpoints, many command lines and folders (FUZZ_FLAGS="-k images")
	$(PYTEST) tests/robustness/test_fuzz.py --hypothesis-profile fuzz $(FUZZ_FLAGS)

coverage: $(VENV)/.installed-dev ## run the tests and list the lines that none of them reaches (twice as long as the tests alone)
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

soak: $(VENV)/.installed-dev ## kill trainings 400 times and see that they end as if they had been left alone
	$(RUN) -m tests.robustness.kill_checks --kills 400

check: $(VENV)/.installed-dev ## format, lint and types, without changing anything
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(VENV)/.installed-dev ## put the code into the project's format
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

# the environment of `make install` where there is one
CHECK_PYTHON = $(or $(wildcard $(RUN)),$(PYTHON))

# without OMP_WAIT_POLICY: every contestant runs as its users start it
BENCH = env -u OMP_WAIT_POLICY $(RUN) -m tools.benchmark
# those of run_multiscale_experiments.sh without its two controls
BENCH_MODELS = single_scale 0.25,0.5,0.75 0.25,0.5 0.5,0.75 0.2,0.4,0.6,0.8

bench: $(VENV)/.installed ## measure speed on the CPU against a plain PyTorch loop, on an idle machine (long)
	$(BENCH) --device cpu --output benchmark_cpu.json

bench-gpu: $(VENV)/.installed ## the same on an idle machine with a GPU: five models, batches of 32 and 256
	$(BENCH) --device cuda --models $(BENCH_MODELS) --batch_size 32 256 --output benchmark_gpu.json

check-gpu: ## on a machine with a GPU: its tests, speed, resume, several processes (8 minutes; writes gpu_check.json)
	$(CHECK_PYTHON) -m tests.gpu_check

pretrained: $(VENV)/.installed ## train, calibrate and measure the shipped detector on the images in POOL=DIR (many hours)
	OMP_NUM_THREADS=1 $(RUN) -m tools.pretrained --pool "$(POOL)"

clean: ## remove the virtual environment and everything the demo wrote
	rm -rf $(VENV) datasets/demo demo
