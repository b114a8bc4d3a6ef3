"""Table of functional forms of the curve of accuracy on entropy."""

import pandas as pd

from ..analysis.forms import FORM_COLUMNS, FORMS
from . import style

TITLE = "Which form has the curve?"
CAPTION = (
    "Root mean square error, in accuracy points, of predicting each fifth of a run's points from the other four, "
    "and in brackets how much the form's AICc lies above that of the run's best form, with the number of points "
    "discounted for the autocorrelation of the residuals (no bracket: too few are left); means over seeds. In "
    "bold: forms within 2 of the best, which the points do not tell apart; below 10 a form is not excluded. "
    "Exponential is the paper's R = -a exp(H) + b; logistic is in training steps and knows no entropy. Paper: "
    "dots of its Fig 1 (in the order of entropy, which stands for that of training) and of its Fig 11, read off "
    "the pictures."
)
KEYS = ["source", "model", "train_set", "method"]
MEASURES = ["blocked_rmse", "extrapolation_rmse", "delta_aicc_effective", "weight_effective", "autocorrelation"]
CLOSE = 2
"""Difference of AICc within which forms are equally good (Burnham and Anderson 2002)."""


def table(frames: style.Frames) -> pd.DataFrame:
    """One row per source (`ours`, `paper fig01 dots`, `paper fig11`), model, train set, method and form.

    Columns: these, parameters, runs, best (runs whose best form by effective AICc it is), then the means over
    runs of `MEASURES`: errors as fractions, differences of AICc, Akaike weights, lag-1 autocorrelation of
    residuals.
    """
    ours = frames.get("forms", pd.DataFrame()).reindex(columns=FORM_COLUMNS).assign(source="ours")
    paper = frames.get("published_forms", pd.DataFrame()).reindex(columns=["series", *FORM_COLUMNS])
    paper = style.of_method(paper.assign(source="paper " + paper["series"].astype(str)))
    parts = [part.dropna(subset=["form"]) for part in (ours, paper)]
    frame = pd.concat([part for part in parts if not part.empty] or parts, ignore_index=True)
    found = frame.assign(best=frame["delta_aicc_effective"] == 0).groupby([*KEYS, "form"], sort=False)
    means = found[MEASURES].mean()
    counts = found.agg(parameters=("parameters", "first"), runs=("run", "nunique"), best=("best", "sum"))
    table = counts.join(means).reset_index()
    models = {model: i for i, model in enumerate(style.model_order(table["model"], frames.get("runs")))}
    methods = {method: i for i, method in enumerate(style.method_order(table["method"]))}
    forms = {form: i for i, form in enumerate(FORMS)}
    ranks = table.assign(
        one=table["model"].map(models), two=table["method"].map(methods), three=table["form"].map(forms)
    )
    order = ranks.sort_values(["source", "one", "train_set", "two", "three"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per source, model, train set and method; a column per form: `1.3 (0.0)`."""
    rows = []
    for (source, model, train_set, method), mine in frame.groupby(KEYS, sort=False):
        row = {"Source": "this experiment" if source == "ours" else source.replace("paper fig", "paper, Fig ")}
        row["Source"] = row["Source"].replace(" 0", " ")
        row |= {"Model": style.model_label(model), "Trained on": train_set, "Method": style.method_label(method)}
        row["Runs"] = str(mine["runs"].max())
        known = mine.set_index("form")
        row |= {form: _cell(known.loc[form]) if form in known.index else "–" for form in FORMS}
        rows.append(row)
    return pd.DataFrame(rows, columns=["Source", "Model", "Trained on", "Method", "Runs", *FORMS])


def _cell(row: pd.Series) -> str:
    error, delta = row["blocked_rmse"], row["delta_aicc_effective"]
    if pd.isna(error) and pd.isna(delta):
        return "–"
    text = "–" if pd.isna(error) else f"{100 * error:.1f}"
    if pd.isna(delta):
        return text
    return f"**{text} ({delta:.1f})**" if delta <= CLOSE else f"{text} ({delta:.1f})"
