"""Makes finished runs: gives every run of an experiment a folder of the store, with links to one that was trained.

Run as `finished_runs.py EXPERIMENT RESULTS FOLDER` where data and models of the experiment are there. A training
of such a run reads its inputs, takes the lock, compares all digests and writes its outputs: a job of the workflow
like any other, without the minutes of a real training.
"""

import os
import shutil
import sys
from pathlib import Path

from entropy_mechanism.config import load_experiment
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.resolve import resolve
from entropy_mechanism.stages.train import training_fingerprint

experiment, results, trained = map(Path, sys.argv[1:])
trained = trained.relative_to(Path.cwd())
plan, paths = Plan(load_experiment(experiment)), Paths(results, experiment.stem)
for name, run in plan.runs.items():
    resolve(experiment, name, Path(paths.run_config(name)), results)
    inputs = [
        Path(paths.model(run.model)),
        Path(paths.data(run.train_set)),
        Path(paths.data(plan.validations[name])),
    ]
    folder = paths.store / training_fingerprint(plan.run_config(name), *inputs)
    if folder == trained:
        continue
    folder.mkdir(parents=True)
    shutil.copytree(trained / "final", folder / "final", copy_function=os.link)
    for file in ("metrics.jsonl", "done.json"):
        os.link(trained / file, folder / file)
