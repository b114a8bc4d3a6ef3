"""The files that the report is made from. Light to import: planning asks for them too.

A command line of all of them would be longer than a system allows for an experiment of a hundred runs, so rule and
stage both ask here.
"""

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
    items = [*plan.experiment.figures, *plan.experiment.tables]
    return [
        *(paths.analysis(kind, run) for run in plan.runs for kind in RUN_ANALYSES),
        *(paths.across(kind, item) for item in items for kind in registry.entry(item).inputs if kind in STUDIES),
        *(paths.fixed(name) for name in FIXED),
        *(paths.scores(policy) for policy in plan.policies),
        *(paths.comparison(policy) for policy in plan.policies if plan.references(policy)),
    ]
