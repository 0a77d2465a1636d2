# Everything a stranger needs: `make demo` and `make test`.
# Both build .venv from nothing the first time; later calls find it as it is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := exp/demo
# Tests run in so many processes, each with one thread.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist=worksteal

# Threads that spin while they wait slow down their neighbours.
export OMP_WAIT_POLICY := passive

.PHONY: help demo demo-av test test-fast test-faults test-gpu lint format docs clean

help:
	@echo "make demo       synthetic corpus, training and rounds without labels (3 to 6 min on 2 idle cores)"
	@echo "make demo-av    the same with voices and drawn faces (5 to 12 min)"
	@echo "make test       documentation and the whole test suite (under 20 min on 2 cores)"
	@echo "make test-fast  the quick tests only"
	@echo "make test-faults  kills, full disks, damaged files and others, on real runs (under 30 min)"
	@echo "make test-gpu   the tests that need a GPU"
	@echo "make lint       formatter and linter, changing nothing"
	@echo "make format     formatter and linter, mending what they can"
	@echo "make docs       the documentation as a site, docs/_build/index.html (1 min)"

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	    echo "Missing: $(PYTHON). Install Python 3.10 or newer, or name one:"; \
	    echo "    make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "$(PYTHON) is too old: Python 3.10 or newer is needed. Name one:"; \
	    echo "    make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "Missing: Python's venv module (Debian: apt install python3-venv)."; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing torch, speechbrain and friends into $(VENV) (6.5 GB of disk)"
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@$(BIN)/python -c 'import torch, torchaudio, speechbrain' || { \
	    echo "torch and torchaudio do not fit together; see pyproject.toml"; exit 1; }
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python recipes/VoxCeleb/SSL/train.py \
	    recipes/MiniVox/SSL/hparams/simclr_ecapa_mini.yaml \
	    --data_folder=$(DEMO)/corpus --output_folder=$(DEMO)
	$(BIN)/python recipes/VoxCeleb/PseudoLabels/train.py \
	    recipes/MiniVox/PseudoLabels/hparams/dlg_lc_ecapa_mini.yaml \
	    --data_folder=$(DEMO)/corpus --output_folder=$(DEMO)/rounds \
	    --initial_model=$(DEMO)
	@echo "The reports: $(DEMO)/report.html (self-supervised),"
	@echo "             $(DEMO)/rounds/report.html (then rounds of pseudo labels)"

# Voices and drawn faces: self-supervised training of each, then common rounds.
demo-av: $(VENV)/.installed
	$(BIN)/python recipes/VoxCeleb/SSL/train.py \
	    recipes/MiniVox/SSL/hparams/simclr_ecapa_mini.yaml \
	    --data_folder=$(DEMO)/corpus --output_folder=$(DEMO)-av/voices
	$(BIN)/python recipes/VoxCeleb/SSL/train.py \
	    recipes/MiniVox/SSL/hparams/simclr_face_mini.yaml \
	    --data_folder=$(DEMO)/corpus --output_folder=$(DEMO)-av/faces
	$(BIN)/python recipes/VoxCeleb/AudioVisual/train.py \
	    recipes/MiniVox/AudioVisual/hparams/joint_mini.yaml \
	    --data_folder=$(DEMO)/corpus --output_folder=$(DEMO)-av/rounds \
	    --initial_model=$(DEMO)-av/voices --initial_face_model=$(DEMO)-av/faces
	@echo "The report: $(DEMO)-av/rounds/report.html"

test: docs
	$(PYTEST) --doctest-modules speechbrain_ssl
	$(PYTEST) --durations=15

test-fast: $(VENV)/.installed
	$(PYTEST) -m "not slow"

test-faults: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/run.py results/reliability

# One process, which has the GPU to itself.
test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -q tests/gpu

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/api come from the docstrings; those of modules that have
# gone must not stay.
docs: $(VENV)/.installed
	rm -rf docs/api docs/_build
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build
	@echo "The site: docs/_build/index.html"

clean:
	rm -rf exp build docs/api docs/_build *.egg-info .pytest_cache .ruff_cache
