"""Analysis frames of an invented experiment whose runs obey the law exactly, for figures and the report."""

import json
from itertools import product

import numpy as np
import pandas as pd
from dynamics_frames import with_dynamics

from entropy_mechanism.analysis.ceiling import CEILING_COLUMNS
from entropy_mechanism.figures import style

METHODS = ("grpo", "clip-higher", "clip-cov", "kl-cov", "on-policy")
FINAL = {"grpo": 0.03, "clip-higher": 0.10, "clip-cov": 0.13, "kl-cov": 0.20, "on-policy": 0.05}
A, B = 0.55, 1.45
ENDS = {"_low": -1, "_high": 1}
FORWARD = {"predictor": "exponential", "direction": "forward"}
NONE = {"entropy": 0.0, "reference_kl": 0.0, "kl_estimator": "k3"}
CLIP = {"name": "ppo-clip", "clip_low": 0.2, "clip_high": 0.2}
SELECTION = {"unit": "fraction", "scope": "minibatch", "policy": "current", "form": "advantage", "min_tokens": 0}
CLIP_COV = SELECTION | {"name": "clip-cov", "fraction": 0.02, "covariance_low": 1.0, "covariance_high": 15.0}
CLIP_COV |= {"band": "closed", "draw": "uniform"}
KL_COV = SELECTION | {"name": "kl-cov", "fraction": 0.03, "coefficient": 2.0, "penalty": "abs"}
OBJECTIVES = {"clip-cov": CLIP_COV, "kl-cov": KL_COV, "on-policy": {"name": "policy-gradient"}}


def settings(objective=CLIP, regularisation=None, estimator="grpo"):
    """The columns of `runs` that say what a run is made of."""
    parts = {"advantage": {"estimator": estimator, "std": "sample"}, "objective": objective}
    parts["regularisation"] = NONE | (regularisation or {})
    texts = {name: json.dumps(part) for name, part in parts.items()}
    return texts | {"aggregation": "token-mean", "learning_rate": 3e-4, "device": "cpu", "dtype": "float32"}


def make_frames(
    models=("tiny",), seeds=(0,), methods=METHODS, steps=40, final=FINAL, train_sets=("chains",), made=None
):
    """Analysis frames of an invented experiment: H decays exponentially and R = -A exp(H) + B exactly.

    A training set whose name begins with `code` is of that task; `made` holds the `settings` of further methods.
    """
    names = "curves token_covariances law forecasts forecast_points consumption dynamics runs scores"
    parts = {name: [] for name in names.split()}
    step = np.arange(steps + 1)
    known = {name: settings(OBJECTIVES.get(name, CLIP)) for name in METHODS}
    known |= {name: settings(estimator=name) for name in ("rloo", "prime", "reinforce++")} | (made or {})
    for size, model in enumerate(models, start=1):
        for number, (train_set, method) in enumerate(product(train_sets, methods)):
            for seed in seeds:
                updates = 1 if method == "on-policy" else 4
                names = {
                    "run": f"{model}--{train_set}--{method}--s{seed}",
                    "model": model,
                    "method": method,
                    "seed": seed,
                }
                placed = names | {"train_set": train_set, "updates_per_rollout": updates}
                end = final.get(method, 0.06) * (1 + 0.1 * seed)
                entropy = end + (0.5 - end) * np.exp(-step / 6)
                accuracy = np.where(step % 4 == 0, -A * np.exp(entropy) + B, np.nan)
                curve = {
                    "step": step,
                    "gradient_steps": step * updates,
                    style.ENTROPY: entropy,
                    style.ACCURACY: accuracy,
                }
                if method in ("clip-cov", "kl-cov"):
                    curve["selection/fraction"] = 0.019
                curve |= {"length/mean": 16 + 0.1 * step, "covariance/mean": np.where(step < 36, 0.01, -0.01)}
                parts["curves"].append(pd.DataFrame(placed | curve))
                top = {
                    f"covariance/top_{share}": (1 - share) * (seed + 1)
                    for share in (0.0002, 0.002, 0.02, 0.2, 0.5)
                }
                first = {"step": 0, "covariance/mean": 0.01} | top
                later = {"step": 1, "covariance/mean": 9.0} | dict.fromkeys(top, 9.0)
                parts["token_covariances"] += [placed | first, placed | later]
                law = {"a": A, "b": B, "ceiling": B - A, "rmse": 0.01 + 0.01 * seed, "r2": 0.99, "points": 11}
                parts["law"].append(placed | law)
                parts["forecasts"].append(
                    names | FORWARD | {"fraction": 0.15, "a": A, "b": B, "rmse": 0.02, "final_error": -0.03}
                )
                parts["forecasts"].append(
                    names | FORWARD | {"fraction": 0.5, "a": 9.0, "b": 9.0, "rmse": 9.0, "final_error": 9.0}
                )
                for other in ({"predictor": "linear"}, {"direction": "reversed"}):  # are not to be shown
                    nines = dict.fromkeys(("a", "b", "rmse", "final_error"), 9.0)
                    parts["forecasts"].append(names | FORWARD | {"fraction": 0.15} | nines | other)
                points = {"step": step[::4], "entropy": entropy[::4], "accuracy": accuracy[::4]}
                points |= {"predicted": accuracy[::4], "fitted": step[::4] <= 8}
                for fraction in (0.15, 0.5):
                    parts["forecast_points"].append(
                        pd.DataFrame(names | FORWARD | {"fraction": fraction} | points)
                    )
                for fraction, left, reached in ((1 / 12, 0.4, 0.7), (1 / 3, 0.1, 0.9), (0.5, 0.0, 1.0)):
                    shares = {"entropy_left": left + 0.02 * seed, "accuracy_reached": reached}
                    parts["consumption"].append(names | {"fraction": fraction} | shares)
                series = {"covariance": 0.02, "minus_entropy_difference": 0.05}
                series |= {f"group_accuracy={k / 8:g}": 0.01 * k for k in range(1, 8)}
                for name, scale in series.items():
                    value = scale * np.exp(-step / 10)
                    band = {"value": value, "smooth": value, "low": value - 0.001, "high": value + 0.001}
                    band |= {"series": name, "step": step, "gradient_steps": step * updates}
                    recorded = (name != "minus_entropy_difference") & (step < steps)
                    band["source"] = np.where(recorded, "records", "logged")
                    parts["dynamics"].append(pd.DataFrame(names | band))
                sizes = {
                    "non_embedding_parameters": 1000 * size,
                    "steps": steps,
                    "gradient_steps": steps * updates,
                }
                task = "code" if train_set.startswith("code") else "math"
                parts["runs"].append(placed | sizes | {"seconds": 60.0, "task": task} | known[method])
                scores = {
                    "easy": 0.80 + 0.02 * number + 0.1 * seed,
                    "hard": 0.50 - 0.02 * number,
                    "pooled": 0.6,
                    "macro": 0.65,
                }
                parts["scores"] += [
                    score_row(names["run"], placed, bench, score) for bench, score in scores.items()
                ]
        base = {"model": model, "method": "base", "seed": np.nan}
        parts["scores"] += [score_row(model, base, bench, 0.2) for bench in ("easy", "hard", "pooled", "macro")]
    frames = {
        name: pd.concat(rows, ignore_index=True) if isinstance(rows[0], pd.DataFrame) else pd.DataFrame(rows)
        for name, rows in parts.items()
    }
    frames |= {"size_law": size_law(frames["runs"]), "published_size_law": published_size_law()}
    frames |= {"common_law": common_law(frames["runs"])}
    paper = {"model": "qwen2.5-7b", "train_set": "dapo-math", "seed": 0}
    paper = pd.DataFrame([paper | {"run": method, "method": method} for method in ("grpo", "kl-cov")])
    frames |= {"ceiling": ceiling(frames["runs"]), "published_ceiling": ceiling(paper, 0.22, 0.59)}
    return with_dynamics(frames | {"comparison": comparison(frames["scores"])})


def many_models():
    """Models of all sizes, two seeds and two methods each."""
    models = ("tiny-s", "tiny-l", "qwen2.5-7b", "mistral-24b")
    return make_frames(models, seeds=(0, 1), methods=("grpo", "kl-cov"), steps=24)


def several_settings():
    """Both tasks, two seeds, several algorithms, coefficients and training sets of one model."""
    bonus = {f"entropy-{value:g}": settings(regularisation={"entropy": value}) for value in (0.01, 0.001)}
    reference = {
        f"{estimator}-{value:g}": settings(
            regularisation={"reference_kl": value, "kl_estimator": estimator}, objective=CLIP | {"clip_high": 0.2}
        )
        for estimator, value in (("k3", 0.1), ("k3", 0.05), ("k1", 0.1))
    }
    clip = {"clip-cov-0.5": settings(CLIP_COV | {"fraction": 0.5, "unit": "percent"})}
    kl = {"kl-cov-0": settings(KL_COV | {"coefficient": 0.0}), "kl-cov-old": settings(KL_COV | {"policy": "old"})}
    made = bonus | reference | clip | kl
    methods = ("grpo", "rloo", "prime", "reinforce++", "clip-cov", "kl-cov", *made)
    sets = ("chains", "hard", "code-programs")
    return make_frames(("tiny",), seeds=(0, 1), methods=methods, steps=24, train_sets=sets, made=made)


def comparison(scores):
    """Differences of every policy's scores to those of its base model."""
    rows = scores[scores["method"] != "base"].drop(columns=["score", "samples"])
    rows = rows.drop(columns=[name for name in rows if name.startswith("clean_")])
    columns = {"reference": rows["model"], "reference_method": "base", "difference": 0.1, "p": 0.02}
    return rows.assign(**columns, low=0.05, high=0.15)


def size_law(runs):
    """Study `size_law` of coefficients that are linear in the logarithm of the size."""
    rows = []
    grpo = runs[runs["method"] == "grpo"].drop_duplicates(["model", "task"])
    for row, coefficient in product(grpo.to_dict("records"), "ab"):
        size = np.log(row["non_embedding_parameters"] / 1e9)
        intercept, slope = {"a": (0.9, 0.03), "b": (2.0, 0.05)}[coefficient]
        value = intercept + slope * size
        numbers = {"value": value, "low": value - 0.02, "high": value + 0.03, "fitted": value}
        numbers |= {"intercept": intercept, "slope": slope, "left_out_prediction": value + 0.01}
        keys = {name: row[name] for name in ("task", "model", "non_embedding_parameters")}
        rows.append(keys | {"coefficient": coefficient} | numbers | {"left_out_error": 0.01, "sizes": len(grpo)})
    columns = "task model non_embedding_parameters coefficient value low high fitted intercept slope"
    return pd.DataFrame(rows, columns=[*columns.split(), "left_out_prediction", "left_out_error", "sizes"])


def published_size_law():
    """The paper's sizes on a line of their own."""
    sizes = {"qwen2.5-7b": 6.5e9, "qwen2.5-32b": 3.1e10}
    names = [(model, size, "math", "grpo") for model, size in sizes.items()]
    runs = pd.DataFrame(names, columns=["model", "non_embedding_parameters", "task", "method"])
    rows = size_law(runs)
    shift = rows["coefficient"].map({"a": -0.7, "b": -1.5})
    return rows.assign(value=rows["value"] + shift, intercept=rows["intercept"] + shift)


def common_law(runs):
    """Study `common_law`: every method of a model and training set on one curve."""
    rows = []
    for (model, train_set), group in runs.groupby(["model", "train_set"]):
        for method in [*dict.fromkeys(group["method"]), "common"]:
            keys = {"model": model, "train_set": train_set, "method": method}
            fit = {"a": A, "b": B, "ceiling": B - A, "points": 11, "rmse": 0.01}
            test = {"statistic": 1.1, "p": 0.4, "delta_aicc": 7.2, "verdict": "one curve"}
            rows.append(keys | fit | test)
    return pd.DataFrame(rows)


def ceiling(runs, a=A, b=B):
    """Study `ceiling`: every run that is not GRPO's lies on the curve."""
    rows = []
    for row in runs[runs["method"] != "grpo"].to_dict("records"):
        keys = {name: row[name] for name in ("run", "model", "train_set", "method", "seed")}
        values = {"baseline_a": a, "baseline_b": b, "baseline_ceiling": b - a, "residual": 0.0, "excess": -0.1}
        ends = {f"{name}{end}": value + s * 0.02 for name, value in values.items() for end, s in ENDS.items()}
        rows.append(keys | {"baseline": "grpo", "points": 11, "verdict": "on curve"} | values | ends)
    return pd.DataFrame(rows).reindex(columns=CEILING_COLUMNS)


def empty(frames):
    """The same columns without a row."""
    return {name: frame.iloc[:0] for name, frame in frames.items()}


def score_row(policy, names, benchmark, score):
    keys = {"model": names["model"], "method": names["method"], "seed": names["seed"], "policy": policy}
    keys["train_set"] = None if names["method"] == "base" else names["train_set"]
    numbers = {"problems": 100, "samples": 100, "score": score, "low": score - 0.05, "high": score + 0.05}
    clean = {f"clean_{name}": value for name, value in numbers.items()}
    return keys | {"benchmark": benchmark, "protocol": "greedy"} | numbers | clean
