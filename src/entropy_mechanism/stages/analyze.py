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
from entropy_mechanism.config import load_experiment


def fit_law(experiment: Path, run: str, curves: Path, outputs: list[Path], results: Path) -> None:
    """The law of one run, forecasts, other forms: law, forecasts, forecast_points and forms, in this order."""
    settings = load_experiment(experiment).analysis
    params = settings.model_dump(mode="json")
    with tracking.stage(
        "fit_law", run, results=results, params=params, inputs=[curves], outputs=outputs
    ) as record:
        frame = pd.read_parquet(curves)
        law = fit_runs(frame, settings.seed, settings.resamples)
        forecasts, points = forecast_runs(frame, settings.forecast_fractions)
        for path, table in zip(outputs, (law, forecasts, points, compare_forms(frame)), strict=True):
            files.write_parquet(path, table)
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
    """How one run spends its entropy: consumption, dynamics, entropy_change, dynamics_summary, in this order."""
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
        tables = (consumption(frame), series, changes, summary)
        for path, table in zip(outputs, tables, strict=True):
            files.write_parquet(path, table)
        for name in ("positive_share", "pearson", "spearman", "slope_through_origin", "same_prefix_slope"):
            record.metric(name, float(summary[name].iloc[0]))
