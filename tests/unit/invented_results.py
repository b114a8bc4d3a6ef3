"""Analysis frames of an invented experiment in which every claim holds (`right`), or none does."""

import json

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.columns import ENTROPY_BEFORE_FILTER
from entropy_mechanism.figures import style

STEPS = np.arange(41)
SIZES = {"tiny-a": 1e5, "tiny-b": 3e5, "tiny-c": 1e6, "tiny-d": 3e6, "big": 1e7}
SEEDS_OF_ONE_SHARE = tuple(range(10, 19))  # of Clip-Cov's smallest: they show no sweep
GRPO, PPO = {"estimator": "grpo"}, {"name": "ppo-clip"}
NO_TERMS = {"entropy": 0.0, "reference_kl": 0.0}


def clip_cov(**changes):
    return {"name": "clip-cov", "fraction": 0.02, "unit": "fraction", "scope": "minibatch"} | changes


def kl_cov(**changes):
    return {"name": "kl-cov", "fraction": 0.02, "coefficient": 1.0, "policy": "current"} | changes


def plan(right):
    """Method -> items that show it, objective, regularisation, entropy and accuracy at the end."""

    def method(items, end, accuracy, objective=PPO, more_seeds=(), **terms):
        about = {"items": items.split(), "end": end, "accuracy": accuracy, "objective": objective, "terms": terms}
        return about | {"more_seeds": more_seeds}

    if right:
        ends = {"grpo": (0.02, 0.60), "clip": (0.1, 0.65), "kl": (0.3, 0.66), "small": (0.022, 0.59)}
        ends |= {"large": (2.0, 0.3), "reference": (0.3, 0.5), "scope": (0.1, 0.65), "policy": (0.3, 0.66)}
        levels = (0.05, 0.1, 0.3)
    else:
        ends = {"grpo": (0.45, 0.20), "clip": (0.40, 0.15), "kl": (0.41, 0.14), "small": (0.9, 0.5)}
        ends |= {"large": (0.3, 0.5), "reference": (0.2, 0.5), "scope": (0.1, 0.35), "policy": (0.1, 0.35)}
        levels = (0.30, 0.29, 0.28)
    sweep = {}
    for level, share, weight in zip(levels, (2e-4, 4e-4, 7e-4), (0.1, 0.5, 1.0), strict=True):
        more = SEEDS_OF_ONE_SHARE if share == 2e-4 else ()
        sweep[f"clip-cov-{share:g}"] = method("fig12", level, 0.6, clip_cov(fraction=share), more)
        sweep[f"kl-cov-{weight:g}"] = method("fig12", level, 0.6, kl_cov(coefficient=weight))
    return {
        "grpo": method(
            "fig01 fig02 fig03 fig05 fig06 fig07 fig09 fig10 fig11 fig13 fig14 table1 table2", *ends["grpo"]
        ),
        "on-policy": method("fig08", *ends["grpo"], {"name": "policy-gradient"}),
        "clip-cov": method("fig11 table2 selection", *ends["clip"], clip_cov()),
        "clip-cov-micro": method("selection", *ends["scope"], clip_cov(scope="microbatch")),
        "kl-cov": method("fig11 table2 selection", *ends["kl"], kl_cov()),
        "kl-cov-old": method("selection", *ends["policy"], kl_cov(policy="old")),
        "bonus-small": method("fig09", *ends["small"], entropy=1e-4),
        "bonus-large": method("fig09", *ends["large"], entropy=1e-2),
        "reference": method("fig10", *ends["reference"], reference_kl=0.1),
        **sweep,
    }


def invent(right=True, seeds=(0, 1, 2)):
    """Frames by kind and the runs that every item shows."""
    parts, shown = {}, {}

    def add(kind, *rows):
        parts.setdefault(kind, []).extend(rows)

    def pick(one, other):
        return one if right else other

    for train_set, task in (("chains", "math"), ("hard-chains", "math"), ("programs", "code")):
        for method, about in plan(right).items():
            if train_set != "chains" and method != "grpo":
                continue
            items = {"chains": about["items"], "hard-chains": ["fig13"], "programs": ["fig04", "fig05", "fig07"]}[
                train_set
            ]
            for seed in (*seeds, *about["more_seeds"]):
                run = f"big--{train_set}--{method}--s{seed}"
                names = {"run": run, "model": "big", "train_set": train_set, "method": method, "seed": seed}
                for item in items:
                    shown.setdefault(item, set()).add(run)
                _add_run(add, pick, names, about, task)
    for task in ("math", "code"):
        for coefficient in "ab":
            for model, size in SIZES.items():
                slope = pick(0.05, -0.05)
                row = {"task": task, "coefficient": coefficient, "model": model, "non_embedding_parameters": size}
                row |= {"slope": slope, "slope_low": slope - 0.01, "slope_high": slope + 0.01}
                row |= {"left_out_error": pick(0.01, 0.3), "left_out_error_of_mean": 0.2}
                add("size_law", row)
                if task == "math":
                    add("published_size_law", row | {"slope": 0.046 if coefficient == "a" else 0.116})
    test = {"model": "big", "train_set": "chains", "p": pick(0.6, 0.001)}
    for method in ("grpo", "rloo", "common"):
        add("common_law", test | {"method": method, "verdict": pick("one curve", "several curves")})
    decisions = (("theorem-1", "held"), ("theorem-2", "held"), ("lemma-1", "followed"))
    bandits = ((check, "held") for check in ("lemma-1", "proposition-1", "theorem-1", "theorem-2"))
    for kind, checks in (("tabular", bandits), ("tabular_left_out", decisions)):
        for check, states in checks:
            for instance in range(3):
                for step_size in (1e-3, 1e-2, 1e-1):
                    row = {"check": check, "states": states, "instance": instance, "step_size": step_size}
                    error = (1 + instance) * step_size ** pick(2, 1)
                    add(kind, row | {"form": "printed", "error": error})
                    add(kind, row | {"form": "complete", "error": step_size ** pick(1, 2)})
    add("counterexamples", {"case": "rare", "update": 0, "covariance": -0.1, "entropy_change": pick(-0.1, 0.1)})
    add("counterexamples", {"case": "rare", "update": 1, "covariance": -0.1, "entropy_change": 0.1})
    for series, model, r2, rmse, delta in (
        ("fig01 dots", "7B", 0.97, 0.01, 12.0),
        ("fig01 dots", "32B", 0.99, 0.02, 0.0),
        ("fig01 curves", "32B", 1.0, 0.0, 0.0),
    ):
        names = {"run": f"{series}--{model}", "series": series, "model": model, "method": "grpo", "seed": 0}
        add("published_law", names | {"r2": r2, "rmse": rmse})
        for form, difference, error in (("exponential", delta, 0.03), ("log", 5.0, 0.01)):
            add(
                "published_forms",
                names | {"form": form, "delta_aicc_effective": difference, "blocked_rmse": error},
            )
        for fraction, predictor, direction, error in (
            (0.15, "exponential", "forward", 0.01),
            (0.15, "last-value", "forward", 0.05),
            (0.5, "exponential", "forward", 0.01),
            (0.5, "exponential", "reversed", 0.07),
        ):
            row = {"fraction": fraction, "predictor": predictor, "direction": direction}
            add("published_forecasts", names | row | {"rmse": error, "final_error": error})
        distance = {"residual_low": 0.09, "residual_high": 0.1, "excess_high": 0.1}
        add("published_ceiling", names | distance | {"method": "kl-cov", "verdict": "above ceiling"})
    frames = {
        kind: pd.concat(rows, ignore_index=True) if isinstance(rows[0], pd.DataFrame) else pd.DataFrame(rows)
        for kind, rows in parts.items()
    }
    return frames, shown


def _add_run(add, pick, names, about, task):
    run, method, seed = names["run"], names["method"], names["seed"]
    wobble = 1 + 0.01 * seed
    texts = {"advantage": GRPO, "objective": about["objective"], "regularisation": NO_TERMS | about["terms"]}
    on_policy = method == "on-policy"
    facts = {"non_embedding_parameters": 1e7, "updates_per_rollout": 1 if on_policy else 4, "task": task}
    add("runs", names | facts | {name: json.dumps(value) for name, value in texts.items()})
    fall = np.exp(-STEPS / 6)
    end = about["end"] * wobble
    spread = np.linspace(0, 1, STEPS.size)
    accuracy = 0.25 + (about["accuracy"] - 0.25) * spread
    curve = {
        "step": STEPS,
        style.ENTROPY: end + (0.5 - end) * fall,
        style.ACCURACY: np.where(STEPS % 4 == 0, accuracy, np.nan),
        style.LENGTH: 20 + pick(10, -5) * ("cov" in method) * spread * wobble,
    }
    predicted = -0.01 * (1 + np.sin(STEPS))
    same_prefix = pick(1, -1) * predicted + 1e-4 * np.cos(7.0 * STEPS)
    before = (1 + pick(0.1, 3)) * np.concatenate([[0.0], same_prefix.cumsum()[:-1]])
    add("curves", pd.DataFrame(names | curve | {ENTROPY_BEFORE_FILTER: 2 + before}))
    shares = pick(((1 / 12, 0.2, 0.8), (1 / 3, 0.05, 0.95)), ((1 / 12, 0.9, 0.1), (1 / 3, 0.8, 0.2)))
    for fraction, left, reached in shares:
        columns = {"fraction": fraction, "entropy_left": left * wobble, "accuracy_reached": reached / wobble}
        add("consumption", names | columns)
    a = pick(0.5 if names["train_set"] == "hard-chains" else 0.2, -0.1)
    law = {
        "a": a,
        "a_low": a - 0.02,
        "a_high": a + 0.02,
        "b": 2 * a,
        "b_low": 2 * a - 0.02,
        "b_high": 2 * a + 0.02,
    }
    add("law", names | law | {"r2": pick(0.98, 0.1) / wobble, "rmse": pick(0.005, 0.1) * wobble})
    for fraction in (0.15, 0.5):
        for predictor, direction, error in (
            ("exponential", "forward", pick(0.005, 0.1) if fraction == 0.15 else 0.01),
            ("last-value", "forward", pick(0.05, 0.01)),
            ("exponential", "reversed", pick(0.01, 0.1)),
        ):
            row = {"fraction": fraction, "predictor": predictor, "direction": direction}
            add("forecasts", names | row | {"rmse": error * wobble, "final_error": error * wobble})
    ripple = 0.1 * np.sin(STEPS * (seed + 1))
    covariance = 0.02 * fall * (1 + ripple)
    series = {"covariance": covariance, "minus_entropy_difference": pick(1, -1) * 0.5 * covariance}
    for level, value in ((0.125, pick(1, 3)), (0.5, 2), (0.875, pick(3, 1))):
        series[f"group_accuracy={level:g}"] = 0.001 * value * (1 + ripple)
    for name, values in series.items():
        drawn = {"series": name, "step": STEPS, "value": values, "smooth": values, "window": 9}
        add("dynamics", pd.DataFrame(names | drawn))
    positive, rank = pick(0.9, 0.2), pick(0.6, -0.4)
    summary = {"steps": 41, "positive_share": positive * wobble, "spearman": rank * wobble}
    summary |= {"positive_share_low": positive - 0.1, "positive_share_high": positive + 0.08}
    for name in ("mean_logit_advantage", "mean_logit_weighted_advantage"):
        value = pick(0.8, 0.1) * wobble
        summary |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
    summary |= {"spearman_low": rank - 0.1, "spearman_high": rank + 0.1}
    add("dynamics_summary", {name: names[name] for name in ("run", "method", "seed")} | summary)
    top = {"covariance/top_0.002": pick(10, 1), "covariance/top_0.02": pick(5, 1), "covariance/top_0.5": 0.5}
    add("token_covariances", names | {"step": 0} | {name: value * wobble for name, value in top.items()})
    add("token_covariances", names | {"step": 1} | dict.fromkeys(top, 1.0))
    change = {"step": STEPS, "predicted": predicted, "same_prefix": same_prefix}
    add("entropy_change", pd.DataFrame(names | change | {"state_distribution": pick(0.1, 3) * same_prefix}))
    levels = {"step": STEPS, "token": covariance, "sequence": pick(1, -1) * covariance}
    add("covariance_levels", pd.DataFrame(names | levels | {"action": pick(0.1, -0.1) * covariance}))
    for form, delta, error in (("exponential", pick(0.0, 20.0), pick(0.01, 0.03)), ("log", pick(5.0, 0.0), 0.01)):
        add("forms", names | {"form": form, "delta_aicc_effective": delta, "blocked_rmse": error})
    if method != "grpo":
        judged = {"baseline": "grpo", "verdict": pick("on curve", "above ceiling")}
        judged |= {
            "residual": pick(0.0, 0.06),
            "residual_low": pick(-0.01, 0.05),
            "residual_high": pick(0.01, 0.07),
        }
        judged |= {"excess_low": pick(-0.05, 0.01), "excess_high": pick(-0.01, 0.03)}
        add("ceiling", names | judged)
    if "cov" in method:
        difference = pick(0.05, -0.05) * wobble
        for benchmark in ("pooled", "macro"):
            row = {"policy": run, "reference_method": "grpo", "benchmark": benchmark, "difference": difference}
            add("comparison", names | row | {"low": difference - 0.02, "high": difference + 0.02})
