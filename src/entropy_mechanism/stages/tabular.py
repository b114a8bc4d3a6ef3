"""Exact checks of the entropy formulas on tabular softmax policies; no run enters them."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.analysis import tabular

FRAMES = {
    "tabular": tabular.tabular,
    "tabular_left_out": tabular.tabular_left_out,
    "counterexamples": tabular.counterexamples,
    "counterexample_paths": tabular.counterexample_paths,
}


def write_tabular(outputs: list[str], results: Path) -> None:
    """Formulas beside exact changes, and constructed cases. Outputs are told by their stems, those of `FRAMES`."""
    paths = [Path(path) for path in outputs]
    with tracking.stage("tabular", "tabular", results=results, outputs=paths) as record:
        frames = {path: FRAMES[path.stem]() for path in paths}
        for path, frame in frames.items():
            files.write_parquet(path, frame)
        checks = [frame for path, frame in frames.items() if path.stem.startswith("tabular")]
        for row in tabular.error_slopes(pd.concat(checks)).itertuples() if checks else ():
            record.metric(f"slope/{row.check}/{row.states}/{row.form}", row.slope)
