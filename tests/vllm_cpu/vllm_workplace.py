"""A base policy with heads of size 32 and its data, made through the stages, and runs of it."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

EXPERIMENT = {
    "title": "a small policy that learns within some steps",
    "data": {
        "train": {"kind": "arithmetic", "split": "train", "operands": [2, 3], "problems": 1000},
        "validation": {"kind": "arithmetic", "split": "validation", "operands": [2, 3], "problems": 200},
        "test": {"kind": "arithmetic", "split": "test", "operands": [2, 3], "problems": 40},
    },
    "validation": "validation",
    "models": {
        "nano": {
            "kind": "tiny",
            "layers": 1,
            "width": 64,
            "heads": 2,
            "kv_heads": 1,
            "tied": True,
            "warmup": {
                "steps": 400,
                "operands": [2, 3],
                "problems": 2900,
                "teacher": {"unreliable_share": 0.4, "unreliable": [0.0, 0.15], "reliable": [0.6, 0.95]},
            },
        }
    },
    "methods": {"grpo": {"objective": {"name": "ppo-clip"}}},
    "training": {
        "steps": 30,
        "prompts": 16,
        "samples": 8,
        "updates": 2,
        "learning_rate": 1e-3,
        "max_response": 16,
        "max_batches": 2,
        "validate_every": 10,
        "checkpoint_every": 3,
    },
    "compute": {"nano": {"engine": "vllm"}},
    "runs": [{"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1, 2, 3]}],
    "evaluation": {"max_response": 16, "benchmarks": {"test": {"data": "test", "protocols": ["greedy", "avg@4"]}}},
}


class Workplace:
    """A folder with data, base policy and experiment."""

    def __init__(self, root: Path) -> None:
        """Make them below `root`."""
        self.root = root
        self.experiment = self.write(EXPERIMENT, "experiment")
        for name in EXPERIMENT["data"]:
            options = ("--data", name, "--output", f"{name}.parquet", "--statistics", f"{name}.json")
            self.run("prepare", "--experiment", self.experiment, *options)
        options = ("--model", "nano", "--output", "model/manifest.json")
        self.run("make-model", "--experiment", self.experiment, *options)

    def write(self, experiment: dict, name: str) -> Path:
        """An experiment's file."""
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(experiment))
        return path

    def variant(self, name: str, compute: dict | None = None, **training: object) -> Path:
        """An experiment with other settings of `compute` or of the training."""
        experiment = copy.deepcopy(EXPERIMENT)
        experiment["compute"]["nano"] = {"engine": "vllm"} if compute is None else compute
        experiment["training"] |= training
        return self.write(experiment, name)

    def run(self, *command: object, status: int = 0) -> str:
        """Run one command in a process of its own; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "entropy_mechanism", *map(str, command)],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == status, done.stdout[-3000:]
        return done.stdout

    def command(self, name: str, experiment: Path | None = None, seed: int = 1) -> list[str]:
        """Arguments that train one run with a store and outputs in the folder `name`."""
        config = self.root / name / "run.yaml"
        source = experiment or self.experiment
        options = ("--run", f"nano--train--grpo--s{seed}", "--output", config)
        self.run("resolve", "--experiment", source, *options)
        inputs = f"train --config {config} --model model/manifest.json --train-set train.parquet"
        inputs += f" --validation validation.parquet --store {name}/store --metrics {name}/metrics.parquet"
        return f"{inputs} --output {name}/manifest.json --results {name}".split()

    def train(self, name: str, experiment: Path | None = None, seed: int = 1) -> pd.DataFrame:
        """Train one run to its end; its metrics."""
        self.run(*self.command(name, experiment, seed))
        return pd.read_parquet(self.root / name / "metrics.parquet")

    def rows(self, name: str) -> list[dict]:
        """The series of a run that may have ended early."""
        (series,) = (self.root / name / "store").glob("*/metrics.jsonl")
        return [json.loads(line) for line in series.read_text().splitlines()]
