"""The analyses of the curves that the paper shows."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, shapes, tracking
from entropy_mechanism.analysis import published as paper
from entropy_mechanism.analysis.ceiling import ceiling_test
from entropy_mechanism.analysis.forecasting import forecast_runs
from entropy_mechanism.analysis.forms import compare_forms
from entropy_mechanism.analysis.law import fit_runs
from entropy_mechanism.analysis.size_law import size_law
from entropy_mechanism.config import load_experiment, told_by_name
from entropy_mechanism.figures import published as readings
from entropy_mechanism.paths import FIXED
from entropy_mechanism.settings import Analysis

TABLES = [name for name in FIXED if name.startswith("published")]


def published(experiment: Path, outputs: list[str], results: Path) -> None:
    """Fits, forecasts and tests of the paper's own curves, with this experiment's seed and resamples.

    Outputs are told by their stems, which `analyse_published` lists.
    """
    settings = load_experiment(experiment).analysis
    params = settings.model_dump(mode="json")
    paths = told_by_name("--outputs", outputs, TABLES)
    with tracking.stage("published", "published", results=results, params=params, outputs=paths.values()):
        tables = analyse_published(settings)
        for name, path in paths.items():
            files.write_parquet(path, tables[name])


def analyse_published(settings: Analysis) -> dict[str, pd.DataFrame]:
    """Frames of `published_{law,forms,forecasts,ceiling,size_law}`; law and forms start with a column `series`.

    Series are `fig01 dots` and `fig01 curves` (points along the curves that are drawn there, which give back the
    paper's own constants, for the law and the size law only) and `fig11`, which alone has steps to forecast over
    and interventions to test.
    """
    points = paper.dots(readings.load("fig01_right_qwen2.5"), "fig01-dots", "eurus-2-rl-math")
    drawn = paper.dots(readings.load("fig01_right_fits"), "fig01-curves", "eurus-2-rl-math")
    interventions = pd.concat(
        [
            paper.joined(readings.load(f"fig11_{model}"), "fig11", model, "dapo-math")
            for model in readings.FIG11_MODELS
        ],
        ignore_index=True,
    )
    series = {"fig01 dots": points, "fig01 curves": drawn, "fig11": interventions}
    law = {name: fit_runs(curves, settings.seed, settings.resamples) for name, curves in series.items()}
    forms = {name: compare_forms(curves) for name, curves in series.items() if curves is not drawn}
    forecasts, _ = forecast_runs(interventions, settings.forecast_fractions)
    return {
        "published_law": _labelled(law),
        "published_forms": _labelled(forms),
        "published_forecasts": forecasts,
        "published_ceiling": ceiling_test(interventions, settings.seed, settings.resamples),
        "published_size_law": size_law(law["fig01 curves"], _sizes(law["fig01 curves"])),
    }


def _labelled(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    frame = pd.concat(frames, names=["series"]).reset_index("series")
    return frame.reset_index(drop=True)


def _sizes(law: pd.DataFrame) -> pd.DataFrame:
    """What runs.parquet says of size and task, for the paper's models."""
    sizes = {
        name.split("/")[-1].lower(): shape.layers * shape.layer_parameters + shape.width
        for name, shape in shapes.PUBLISHED.items()
    }
    frame = law[["run", "model"]].copy()
    return frame.assign(task="math", non_embedding_parameters=frame["model"].map(sizes))
