"""How often the intervals and tests of docs/law.md are right: on runs of known truth, and on the paper's curves.

    python benchmarks/law_statistics.py [coverage forms common ceilings] [--trials N]   # some minutes
    python benchmarks/law_statistics.py published   # what the published curves say, seconds

Prints the tables of docs/law.md. Runs are those of the tests (tests/unit/synthetic_runs.py): entropy falls from
0.55 to 0.02 nats, accuracy lies on R = -0.21 exp(H) + 0.596 with AR(1) noise of 0.8 points.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit"))

from synthetic_runs import A, B, curves_of, run_points, training

from entropy_mechanism.analysis.ceiling import ABOVE, BELOW, ON, PASSED, ceiling_test
from entropy_mechanism.analysis.common_law import common_law
from entropy_mechanism.analysis.forms import compare_forms
from entropy_mechanism.analysis.law import fit_law, least_squares
from entropy_mechanism.figures import style
from entropy_mechanism.settings import Analysis
from entropy_mechanism.statistics import moving_block_indices, percentile_interval

TRUTH = {"a": A, "b": B, "ceiling": B - A}
SHAPES = [(points, rho) for points in (20, 38, 75) for rho in (0.0, 0.5, 0.8)]
RESAMPLES = 300


def blocks(entropy, accuracy, seed):
    """Intervals from resampling blocks of points, for comparison."""
    rows = moving_block_indices(entropy.size, RESAMPLES, np.random.default_rng(seed))
    a, b = least_squares(entropy[rows], accuracy[rows])
    return {name: percentile_interval(draws) for name, draws in (("a", a), ("b", b), ("ceiling", b - a))}


def coverage(trials):
    """Share of 95 % intervals that hold the truth."""
    for points, rho in SHAPES:
        random, hits = np.random.default_rng(1), {}
        for trial in range(trials):
            entropy, accuracy = training(points, rho, random)
            fit = vars(fit_law(entropy, accuracy, trial, RESAMPLES))
            ends = {"": {name: (fit[f"{name}_low"], fit[f"{name}_high"]) for name in TRUTH}}
            ends[", blocks"] = blocks(entropy, accuracy, trial)
            for kind, intervals in ends.items():
                for name, (low, high) in intervals.items():
                    hits.setdefault(name + kind, []).append(low <= TRUTH[name] <= high)
        yield {"points": points, "persistence": rho} | {name: share(found) for name, found in hits.items()}


def forms(trials):
    """How often the form that made the points is within 2 of the best, and how often it is excluded."""
    for points, rho in SHAPES:
        random, found = np.random.default_rng(2), []
        for trial in range(trials):
            table = compare_forms(curves_of(run_points(*training(points, rho, random), seed=trial)))
            found.append(table.set_index("form").loc["exponential"])
        row = {"points": points, "persistence": rho}
        for title, column in (("AICc", "delta_aicc"), ("effective AICc", "delta_aicc_effective")):
            delta = np.array([one[column] for one in found], dtype=float)
            known = delta[np.isfinite(delta)]
            row |= {f"{title}: within 2": share(known <= 2), f"{title}: above 10": share(known > 10)}
        yield row


def several(trials, points, rho, shift=0.0, seeds=(1, 1, 1, 1), spread=0.0):
    """Share of trials in which the test of one curve against four finds several."""
    random, found = np.random.default_rng(3), []
    for trial in range(trials):
        runs = []
        for number, count in enumerate(seeds):
            for seed in range(count):
                entropy, accuracy = training(points, rho, random)
                accuracy = accuracy + random.normal(0, spread) + (shift if number == 1 else 0)
                runs.append(run_points(entropy, accuracy, f"method{number}", seed))
        found.append(common_law(curves_of(*runs), trial, RESAMPLES)["verdict"].iloc[-1])
    return share(np.array(found) == "several curves")


def common(trials):
    """Level and power of the test of one curve against four."""
    for points, rho in SHAPES:
        row = {"points": points, "persistence": rho, "one curve": several(trials, points, rho)}
        yield row | {f"one {s} points higher": several(trials, points, rho, s / 100) for s in (1, 2, 4)}
    seeds = {"spread": 0.01, "points": 38}
    for rho in (0.0, 0.5, 0.8):
        for title, counts in (("3 seeds each", (3, 3, 3, 3)), ("3, 1, 1, 1 seeds", (3, 1, 1, 1))):
            row = {"points": f"38, {title} ± 1 point", "persistence": rho}
            row["one curve"] = several(trials, rho=rho, seeds=counts, **seeds)
            for s in (2, 4):
                found = several(trials, rho=rho, shift=s / 100, seeds=counts, **seeds)
                row[f"one {s} points higher"] = found
            yield row


def ceilings(trials):
    """Verdicts about a run on the baseline's curve, one like the baseline's, and ones above it."""
    cases = {"on the curve, H to 0.15": (0.0, 0.15), "like the baseline": (0.0, 0.02)}
    cases |= {"3 points above at the end": (0.03, 0.02), "9 points above": (0.09, 0.15)}
    for points, rho in SHAPES[3:]:
        for title, (shift, last) in cases.items():
            random, found = np.random.default_rng(4), []
            for trial in range(trials):
                base = run_points(*training(points, rho, random))
                entropy, accuracy = training(points, rho, random, last=last)
                accuracy = accuracy + shift * np.sqrt(np.linspace(0, 1, points))
                curves = curves_of(base, run_points(entropy, accuracy, "other"))
                found.append(ceiling_test(curves, trial, 150)["verdict"].iloc[0])
            verdicts = pd.Series(found)
            row = {"points": points, "persistence": rho, "run": title}
            yield row | {name: share(verdicts == name) for name in (ON, ABOVE, PASSED, BELOW)}


def share(found):
    """A share as text."""
    return f"{np.mean(found):.2f}" if len(found) else "–"


def published():
    """The tables of the published curves."""
    from entropy_mechanism.figures import ceiling_test as table_of_ceiling
    from entropy_mechanism.figures import forecasts as table_of_forecasts
    from entropy_mechanism.figures import forms as table_of_forms
    from entropy_mechanism.stages.published import analyse_published

    frames = analyse_published(Analysis())
    law = frames["published_law"]
    law = law[law["series"] == "fig01 dots"]
    shown = law[["model", "points"]].copy()
    for name in TRUTH:
        ends = zip(law[name], law[f"{name}_low"], law[f"{name}_high"], strict=True)
        shown[name] = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in ends]
    print(style.markdown(shown))
    for module in (table_of_forms, table_of_forecasts, table_of_ceiling):
        print(module.markdown(module.table(frames)))
    alone = frames["published_forecasts"]
    alone = alone[(alone["method"] == "grpo") & (alone["fraction"] == 0.15) & (alone["direction"] == "forward")]
    points = alone.pivot(index="predictor", columns="model", values="rmse").mul(100).round(1)
    print(style.markdown(points.reset_index().astype(str)))
    size = frames["published_size_law"]
    columns = ["coefficient", "model", "value", "fitted", "left_out_prediction"]
    columns += ["left_out_error", "left_out_error_of_mean"]
    print(style.markdown(size[columns].round(3).astype(str)))
    print(size.groupby("coefficient")[["intercept", "slope", "slope_low", "slope_high"]].first().round(3))


SIMULATIONS = {table.__name__: table for table in (coverage, forms, common, ceilings)}


def main():
    """Print the tables asked for."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "what", nargs="*", default=list(SIMULATIONS), help=f"published or {', '.join(SIMULATIONS)}"
    )
    parser.add_argument("--trials", type=int, default=100, help="runs or experiments per row")
    arguments = parser.parse_args()
    for name in arguments.what:
        if name == "published":
            published()
            continue
        print(f"{name}: {SIMULATIONS[name].__doc__}\n", flush=True)
        rows = pd.DataFrame(SIMULATIONS[name](arguments.trials))
        print(style.markdown(rows.fillna("").astype(str)), flush=True)


if __name__ == "__main__":
    main()
