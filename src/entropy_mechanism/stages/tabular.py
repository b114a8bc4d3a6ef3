"""Exact checks of the entropy formulas on tabular softmax policies; no run enters them."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.analysis import tabular
from entropy_mechanism.config import told_by_name

FRAMES = {
    "tabular": tabular.tabular,
    "tabular_left_out": tabular.tabular_left_out,
    "counterexamples": tabular.counterexamples,
    "counterexample_paths": tabular.counterexample_paths,
}


def write_tabular(outputs: list[str], results: Path) -> None:
    """Formulas beside exact changes, and constructed cases. Outputs are told by their stems, those of `FRAMES`."""
    paths = told_by_name("--outputs", outputs, FRAMES)
    with tracking.stage("tabular", "tabular", results=results, outputs=paths.values()) as record:
        frames = {name: FRAMES[name]() for name in paths}
        for name, frame in frames.items():
            files.write_parquet(paths[name], frame)
        checks = [frame for name, frame in frames.items() if name.startswith("tabular")]
        for row in tabular.error_slopes(pd.concat(checks)).itertuples() if checks else ():
            record.metric(f"slope/{row.check}/{row.states}/{row.form}", row.slope)
