# `make run` and `make test` need python3 (3.11 or newer), pip and make; the rest is installed into .venv.
# Experiments that grade programs need bubblewrap (docs/grading-code.md); without it their tests are skipped.
# Inside that environment (`. .venv/bin/activate`) the plain commands work: snakemake, pytest, mlflow.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
REQUIREMENTS := requirements/runtime.txt requirements/dev.txt requirements/constraints.txt
PROFILE := $(CURDIR)/workflow/profiles/local
# Options for Snakemake or pytest, e.g. make run ARGS="--config experiment=smoke"
ARGS ?=

.PHONY: run test torture environment clean

run: $(READY)
	$(VENV)/bin/snakemake --profile $(PROFILE) $(ARGS)

test: $(READY)
	$(VENV)/bin/pytest $(ARGS)

# Kills one training run at 200 random moments and compares its end; ARGS="--kills 1000 --seed 7" for another one.
torture: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/pipeline/torture.py $(ARGS)

environment: $(READY)

$(READY): $(REQUIREMENTS) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt \
		-r requirements/runtime.txt -r requirements/dev.txt -e .
	@grep -q SNAKEMAKE_PROFILE $(VENV)/bin/activate || \
		echo 'export SNAKEMAKE_PROFILE="$${SNAKEMAKE_PROFILE:-$(PROFILE)}"' >> $(VENV)/bin/activate
	@touch $@

clean:
	rm -rf $(VENV)
