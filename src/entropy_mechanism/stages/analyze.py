"""Curves of a run -> its law and its dynamics."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.analysis.consumption import consumption
from entropy_mechanism.analysis.dynamics import dynamics
from entropy_mechanism.analysis.dynamics_summary import summarise_dynamics
from entropy_mechanism.analysis.entropy_change import entropy_change
from entropy_mechanism.analysis.forecasting import forecast_runs
from entropy_mechanism.analysis.forms import compare_forms
from entropy_mechanism.analysis.law import fit_runs
from entropy_mechanism.config import load_experiment, told_by_name

LAW = ("law", "forecasts", "forecast_points", "forms")
DYNAMICS = ("consumption", "dynamics", "entropy_change", "dynamics_summary")


def fit_law(experiment: Path, run: str, curves: Path, outputs: list[Path], results: Path) -> None:
    """The law of one run, forecasts, other forms. Outputs are told by their stems, those of `LAW`."""
    paths = told_by_name("--outputs", outputs, LAW)
    settings = load_experiment(experiment).analysis
    params = settings.model_dump(mode="json")
    with tracking.stage(
        "fit_law", run, results=results, params=params, inputs=[curves], outputs=outputs
    ) as record:
        frame = pd.read_parquet(curves)
        law = fit_runs(frame, settings.seed, settings.resamples)
        forecasts, points = forecast_runs(frame, settings.forecast_fractions)
        tables = dict(zip(LAW, (law, forecasts, points, compare_forms(frame)), strict=True))
        for name, path in paths.items():
            files.write_parquet(path, tables[name])
        fitted = law.iloc[0]
        record.metrics({name: float(fitted[name]) for name in ("a", "b", "ceiling", "rmse", "r2", "points")})
        print(f"{run}: R = -{fitted['a']:.3f} exp(H) + {fitted['b']:.3f}, rmse {fitted['rmse']:.4f}")


def entropy_dynamics(
    experiment: Path,
    run: str,
    curves: Path,
    token_covariances: Path,
    covariance_levels: Path,
    outputs: list[Path],
    results: Path,
) -> None:
    """How one run spends its entropy. Outputs are told by their stems, those of `DYNAMICS`."""
    paths = told_by_name("--outputs", outputs, DYNAMICS)
    settings = load_experiment(experiment).analysis
    params = settings.model_dump(mode="json")
    inputs = [curves, token_covariances, covariance_levels]
    with tracking.stage(
        "entropy_dynamics", run, results=results, params=params, inputs=inputs, outputs=outputs
    ) as record:
        frame = pd.read_parquet(curves)
        series = dynamics(frame, settings.smoothing, recorded=pd.read_parquet(token_covariances))
        changes, levels = entropy_change(frame), pd.read_parquet(covariance_levels)
        summary = summarise_dynamics(series, levels, changes, settings.seed, settings.resamples)
        tables = dict(zip(DYNAMICS, (consumption(frame), series, changes, summary), strict=True))
        for name, path in paths.items():
            files.write_parquet(path, tables[name])
        for name in ("positive_share", "pearson", "spearman", "slope_through_origin", "same_prefix_slope"):
            record.metric(name, float(summary[name].iloc[0]))
