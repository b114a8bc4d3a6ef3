"""Where every file of an experiment stands. Wildcards in braces are left for Snakemake to fill."""

from dataclasses import dataclass
from pathlib import Path

RESULTS_VARIABLE = "ENTROPY_MECHANISM_RESULTS"
"""Environment variable that tells stages where the results are; the workflow sets it for its jobs."""
ARTIFACT_LIMIT_VARIABLE = "ENTROPY_MECHANISM_ARTIFACT_LIMIT_MB"
"""Environment variable with the site's `artifact_limit_mb`; the workflow sets it for whoever sends to MLflow."""
ARTIFACT_LIMIT_MB = 64.0
"""Megabytes up to which an output is copied to MLflow: all of `tiny`, not the weights of a 0.5B model."""
SHARED_VARIABLE = "ENTROPY_MECHANISM_SHARED_STORE"
"""Environment variable that tells stages where finished runs are shared; empty or unset where they are not."""
UNSANDBOXED_VARIABLE = "ENTROPY_MECHANISM_UNSANDBOXED"
"""Environment variable; `1` allows programs to run with limits only, without bubblewrap."""
GAVE_UP = "gave-up.json"
"""Stands beside a run's manifest-to-be when its last attempt ended with what would come again."""
RUN_ANALYSES = (
    "runs",
    "curves",
    "token_covariances",
    "covariance_levels",
    "law",
    "forms",
    "forecasts",
    "forecast_points",
    "consumption",
    "dynamics",
    "entropy_change",
    "dynamics_summary",
)
"""Analysis files of one run, `analysis/<run>/<name>.parquet`."""

STUDIES = {
    "size_law": ("law", "runs"),
    "common_law": ("curves",),
    "ceiling": ("curves",),
}
"""Analyses across the runs of one figure or table, `analysis/across/<item>/<study>.parquet`, each with the files
of single runs that it reads."""

FIXED = (
    "published_law",
    "published_forms",
    "published_forecasts",
    "published_ceiling",
    "published_size_law",
    "tabular",
    "tabular_left_out",
    "counterexamples",
    "counterexample_paths",
)
"""Analyses that no run enters, `analysis/fixed/<name>.parquet`."""

RESERVED = ("mlartifacts", "mlruns", "records", "store")
"""Names in a results folder that are no experiment's."""


@dataclass(frozen=True)
class Paths:
    """Files below `results/<experiment>/`; the store is shared by all experiments of a results folder."""

    results: Path
    experiment: str

    @property
    def root(self) -> Path:
        """`results/<experiment>`."""
        return self.results / self.experiment

    @property
    def store(self) -> Path:
        """Training state, by fingerprint."""
        return self.results / "store"

    @property
    def records(self) -> Path:
        """What was executed."""
        return self.results / "records"

    def data(self, name: str = "{data}") -> str:
        """Problems of a data set."""
        return f"{self.root}/data/{name}.parquet"

    def data_statistics(self, name: str = "{data}") -> str:
        """What is in a data set."""
        return f"{self.root}/data/{name}.json"

    def overlap(self, suffix: str, name: str = "{data}") -> str:
        """Test problems that a training set contains as parquet, and their numbers by test set as csv."""
        return f"{self.root}/data/overlap/{name}.{suffix}"

    def model(self, name: str = "{model}") -> str:
        """Manifest of a base model; its weights and tokenizer stand beside it."""
        return f"{self.root}/models/{name}/manifest.json"

    def run_config(self, name: str = "{run}") -> str:
        """Resolved configuration of a run."""
        return f"{self.root}/runs/{name}/run.yaml"

    def run_metrics(self, name: str = "{run}") -> str:
        """One row per rollout step."""
        return f"{self.root}/runs/{name}/metrics.parquet"

    def run_manifest(self, name: str = "{run}") -> str:
        """Where the final weights of a run are, and the digest of everything it made."""
        return f"{self.root}/runs/{name}/manifest.json"

    def run_gave_up(self, name: str = "{run}") -> str:
        """Why the last attempt at a run was in vain, if it was; the next attempt removes it."""
        return f"{self.root}/runs/{name}/{GAVE_UP}"

    def samples(self, policy: str = "{policy}", benchmark: str = "{benchmark}") -> str:
        """Responses of a policy to a benchmark."""
        return f"{self.root}/evaluation/{policy}/{benchmark}/samples.parquet"

    def grades(self, policy: str = "{policy}", benchmark: str = "{benchmark}") -> str:
        """Grades of these responses."""
        return f"{self.root}/evaluation/{policy}/{benchmark}/grades.parquet"

    def scores(self, policy: str = "{policy}") -> str:
        """Scores of a policy on all benchmarks."""
        return f"{self.root}/evaluation/{policy}/scores.parquet"

    def comparison(self, policy: str = "{policy}") -> str:
        """Differences by problem between a policy and those it is compared with."""
        return f"{self.root}/evaluation/{policy}/comparison.parquet"

    def analysis(self, kind: str, run: str = "{run}") -> str:
        """One analysis file of one run."""
        return f"{self.root}/analysis/{run}/{kind}.parquet"

    def across(self, study: str = "{study}", item: str = "{item}") -> str:
        """One analysis across the runs that a figure or table shows."""
        return f"{self.root}/analysis/across/{item}/{study}.parquet"

    def fixed(self, name: str) -> str:
        """One analysis that no run enters."""
        return f"{self.root}/analysis/fixed/{name}.parquet"

    def figure(self, suffix: str, name: str = "{figure}") -> str:
        """A figure as pdf, png or svg, its data as csv, its caption and runs as json."""
        return f"{self.root}/figures/{name}.{suffix}"

    def table(self, suffix: str, name: str = "{table}") -> str:
        """A table as csv or md, its caption and runs as json."""
        return f"{self.root}/tables/{name}.{suffix}"

    @property
    def report(self) -> str:
        """The self-contained report."""
        return f"{self.root}/report/index.html"

    def log(self, rule: str, *wildcards: str) -> str:
        """The log of one job."""
        return f"{self.root}/logs/{rule}/{'--'.join(wildcards) or rule}.log"
