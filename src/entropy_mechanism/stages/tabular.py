"""Exact checks of the entropy formulas on tabular softmax policies; no run enters them."""

from pathlib import Path

from entropy_mechanism import files, tracking
from entropy_mechanism.analysis.tabular import counterexamples, error_slopes, tabular


def write_tabular(outputs: list[str], results: Path) -> None:
    """Formulas beside exact changes, and constructed cases: tabular and counterexamples, in this order."""
    paths = [Path(path) for path in outputs]
    with tracking.stage("tabular", "tabular", results=results, outputs=paths) as record:
        checks = tabular()
        for path, frame in zip(paths, (checks, counterexamples()), strict=True):
            files.write_parquet(path, frame)
        for row in error_slopes(checks).itertuples():
            record.metric(f"slope/{row.check}/{row.setting}/{row.states}/{row.form}", row.slope)
