# Rebuilds the experiments of "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models"
# (arXiv 2505.22617). The science is in config/experiments/, the rules by stage in rules/, the logic in src/.
import os
import sys
import uuid
from pathlib import Path

from snakemake.utils import min_version

from entropy_mechanism import memory, readiness
from entropy_mechanism.config import ConfigError, experiment_path, load_experiment, load_site
from entropy_mechanism.figures import inputs, registry
from entropy_mechanism.paths import RUN_ANALYSES, Paths
from entropy_mechanism.plan import Plan

min_version("9.25.1")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


# This file's folder, which is not Snakemake's where another workflow uses this one as a module.
HOME = Path(os.path.relpath(workflow.current_basedir.get_path_or_uri(secret_free=True)))

try:
    SITE = load_site(config)
    EXPERIMENT_FILE = experiment_path(SITE.experiment, HOME / "config/experiments")
    PLAN = Plan(load_experiment(EXPERIMENT_FILE))
    memory.check_plan(PLAN)
    COMPARED = None
    if SITE.compare_with:
        compared = "config/config.yaml or --config: compare_with"
        COMPARED = experiment_path(SITE.compare_with, HOME / "config/experiments", compared)
    COMPARED_FRAMES = inputs.finished(COMPARED, EXPERIMENT_FILE, Path(SITE.results)) if COMPARED else []
except (ConfigError, memory.DoesNotFit, ValueError) as error:
    sys.exit(f"error: {error}")

EXPERIMENT = PLAN.experiment
registry.adopt(EXPERIMENT.figures)
PATHS = Paths(Path(SITE.results), EXPERIMENT_FILE.stem)

if SITE.container:

    container: SITE.container


include: "rules/scheduler.smk"
include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/analyze.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/screen.smk"


# Every file is asked for, not just the report: whatever was deleted is made again, and what follows from it.
rule all:
    default_target: True
    input:
        [PATHS.data(name) for name in PLAN.data_sets],
        [PATHS.data_statistics(name) for name in PLAN.data_sets],
        [PATHS.overlap(suffix, name) for suffix in ("parquet", "csv") for name in PLAN.trained_sets],
        rules.models.input,
        rules.training.input,
        rules.evaluation.input,
        rules.analysis.input,
        rules.figures.input,
        rules.tables.input,
        PATHS.report,
    message:
        f"Everything of {PATHS.experiment} is there: {PATHS.report}"


onstart:
    jobs = [(job.rule.name, dict(job.wildcards.items())) for job in workflow.dag.needrun_jobs()]
    folders = (PATHS.root, PATHS.store, PATHS.records)
    if faults := readiness.faults(PLAN, jobs, folders, workflow.local_exec, OWN_ENVIRONMENT):
        sys.exit(f"error: {' | '.join(faults)}; nothing was started")
    SCREEN.begin()
    track("follow", f"--parent-pid {os.getpid()}", wait=False)


onsuccess:
    track("finish", "--status FINISHED")
    SCREEN.end(screen.ending(PATHS, asked_for()))


onerror:
    track("finish", "--status FAILED")
    SCREEN.stop()
