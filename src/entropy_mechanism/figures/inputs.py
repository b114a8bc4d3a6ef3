"""The files that the report is made from. Light to import: planning asks for them too.

A command line of all of them would be longer than a system allows for an experiment of a hundred runs, so rule and
stage both ask here.
"""

from pathlib import Path

from ..config import ConfigError, experiment_name, load_experiment
from ..paths import FIXED, RUN_ANALYSES, STUDIES, Paths
from ..plan import Plan
from . import registry


def descriptions(plan: Plan, paths: Paths) -> list[str]:
    """The json file of every figure and table of the experiment, figures first."""
    return [paths.figure("json", name) for name in plan.experiment.figures] + [
        paths.table("json", name) for name in plan.experiment.tables
    ]


def frames(plan: Plan, paths: Paths) -> list[str]:
    """Every analysis of runs, across runs and of none, and the scores and comparisons of every policy."""
    return [
        *(paths.analysis(kind, run) for run in plan.runs for kind in RUN_ANALYSES),
        *(
            paths.across(kind, item)
            for item in plan.items
            for kind in registry.entry(item).inputs
            if kind in STUDIES
        ),
        *(paths.fixed(name) for name in FIXED),
        *(paths.scores(policy) for policy in plan.policies),
        *(paths.comparison(policy) for policy in plan.policies if plan.references(policy)),
    ]


def finished(other: Path, experiment: Path, results: Path) -> list[str]:
    """`frames` of another experiment, `other`, that the report of `experiment` shows beside its own.

    Raises `ConfigError` where it is the same experiment, or has not been run into the results folder.
    """
    key = "config/config.yaml or --config: compare_with"
    if other.stem == experiment.stem:
        raise ConfigError(f"{key}: {other.stem} is the experiment itself; allowed: another one, or null")
    plan = Plan(load_experiment(other))
    registry.adopt(plan.experiment.figures)
    found = frames(plan, Paths(results, other.stem))
    missing = [path for path in found if not Path(path).is_file()]
    if missing:
        raise ConfigError(
            f"{key}: {len(missing)} of {len(found)} results of {other.stem} are not there, first {missing[0]}; "
            f"make them first: snakemake analysis evaluation --config experiment={experiment_name(other)}"
        )
    return found
