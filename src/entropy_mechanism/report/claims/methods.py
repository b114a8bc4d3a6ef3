"""The paper's claims about Clip-Cov and KL-Cov: Section 4, Fig 11 and Table 2."""

from collections.abc import Callable

from ...figures import published, series, style
from .criteria import GAIN, TIMES, TOKENS, Claim, Criterion, Measure, above, at_least
from .evidence import PAIR, Estimate, Evidence, NotMeasured, mean, ratio

# --- What the paper shows ---


def _paper_end(model: str, method: str, quantity: str) -> float:
    """Mean over the last tenth of a curve of Fig 11."""
    points = published.load(f"fig11_{model}")
    mine = points[(points["series"].str.lower() == method) & (points["quantity"] == quantity)]
    return series.last_tenth(mine, "value")


def _both(values: Callable[[str], float], form: str) -> Callable[[Evidence], str]:
    """The number of both models of Fig 11 as one text."""

    def text(_: Evidence) -> str:
        numbers = [format(values(model), form).replace("-", "−") for model in published.FIG11_MODELS]
        return f"{numbers[0]} (7B), {numbers[1]} (32B)"

    return text


def _paper_ratio(method: str) -> Callable[[Evidence], str]:
    return _both(lambda m: _paper_end(m, method, "entropy") / _paper_end(m, "grpo", "entropy"), ".1f")


def _paper_difference(method: str, quantity: str, form: str) -> Callable[[Evidence], str]:
    return _both(lambda m: _paper_end(m, method, quantity) - _paper_end(m, "grpo", quantity), form)


def _paper_table(method: str, macro: bool = False) -> Callable[[Evidence], str]:
    """Difference of averages in Table 2: as printed (pooled), or the plain mean of its seven columns."""

    def average(model: str) -> float:
        table = published.load("table2")
        table = table[table["model"].str.lower() == model]
        table.index = table["method"].str.lower()
        columns = [name for name in table.columns if name not in ("model", "method", "average")]
        means = table[columns].mean(axis=1) if macro else table["average"]
        return float(means[method] - means["grpo"])

    return _both(average, "+.1f")


# --- What was obtained here: Fig 11 and Table 2 ---


def _kept(method: str) -> Measure:
    return lambda evidence: ratio(evidence.pairs(("fig11",), method), "entropy_end", "entropy_end_grpo")


def _difference(method: str, quantity: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        pairs = evidence.pairs(("fig11",), method)
        return mean(pairs, pairs[f"{quantity}_end"] - pairs[f"{quantity}_end_grpo"], "pair")

    return measure


def _score(method: str, benchmark: str) -> Measure:
    """Difference of scores to GRPO, over all problems (`pooled`) or as the mean over benchmarks (`macro`)."""

    def measure(evidence: Evidence) -> Estimate:
        columns = ["policy", *PAIR, "method", "reference_method", "benchmark", "difference", "low", "high"]
        rows = style.of_method(evidence.table("comparison", columns), method)
        rows = rows[(rows["reference_method"].map(style.method_label) == style.method_label(style.BASELINE))]
        rows = rows[(rows["benchmark"] == benchmark) & rows["policy"].isin(evidence.shown.get("table2", ()))]
        if rows.empty:
            raise NotMeasured(f"no {style.method_label(method)} run of Table 2 is compared with GRPO")
        found = mean(rows, "difference", within=("low", "high"))
        basis = "1 pair, interval over problems" if found.runs == 1 else found.basis.replace("run", "pair")
        return Estimate(found.value, found.low, found.high, found.runs, found.seeds, basis)

    return measure


COV = {"clip-cov": "Clip-Cov", "kl-cov": "KL-Cov"}

CLAIMS = (
    Claim(
        key="keep",
        statement="Clip-Cov and KL-Cov keep entropy; KL-Cov more than ten times the baseline's",
        source="Fig 11, Section 4.4",
        items=("fig11",),
        criteria=(
            *(
                Criterion(f"final entropy of {name} over GRPO's", above(1), _kept(key), _paper_ratio(key), TIMES)
                for key, name in COV.items()
            ),
            Criterion(
                "the same for KL-Cov, against the paper's bound",
                at_least(10),
                _kept("kl-cov"),
                _paper_ratio("kl-cov"),
                TIMES,
            ),
        ),
    ),
    Claim(
        key="longer",
        statement="Clip-Cov and KL-Cov lead to longer responses",
        source="Fig 11, Section 4.4",
        items=("fig11",),
        criteria=tuple(
            Criterion(
                f"final response length of {name} less GRPO's",
                above(0),
                _difference(key, "length"),
                _paper_difference(key, "response_length", "+.0f"),
                TOKENS,
            )
            for key, name in COV.items()
        ),
    ),
    Claim(
        key="accuracy",
        statement="Clip-Cov and KL-Cov reach a higher accuracy",
        source="Fig 11, Section 4.4",
        items=("fig11",),
        criteria=tuple(
            Criterion(
                f"final accuracy of {name} less GRPO's",
                above(0),
                _difference(key, "accuracy"),
                _paper_difference(key, "accuracy_percent", "+.1f"),
                GAIN,
            )
            for key, name in COV.items()
        ),
    ),
    Claim(
        key="benchmarks",
        statement="Clip-Cov and KL-Cov score higher on the benchmarks",
        source="Table 2, Section 4.4",
        items=("table2", "comparison"),
        criteria=tuple(
            Criterion(
                f"{average} of {name} less GRPO's",
                above(0),
                _score(key, benchmark),
                _paper_table(key, macro=benchmark == "macro"),
                GAIN,
            )
            for benchmark, average in (
                ("pooled", "average over all problems"),
                ("macro", "mean over benchmarks"),
            )
            for key, name in COV.items()
        ),
    ),
)
