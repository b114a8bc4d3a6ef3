"""Analyses of the paper's curves, and across the runs of an item."""

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import curves_of, run_points, training

from entropy_mechanism.analysis.law import ACCURACY, ENTROPY
from entropy_mechanism.analysis.published import dots, joined
from entropy_mechanism.figures import published
from entropy_mechanism.paths import FIXED, RUN_ANALYSES
from entropy_mechanism.paths import STUDIES as FILES
from entropy_mechanism.settings import Analysis
from entropy_mechanism.stages.published import analyse_published
from entropy_mechanism.stages.studies import STUDIES, study

SIZES = ("0.5b", "1.5b", "3b", "7b", "32b")
# constants of the curves drawn in Fig 1 right of arXiv 2505.22617, as fractions
DRAWN = {"7b": (0.210, 0.596, 0.387), "32b": (0.236, 0.690, 0.454)}


@pytest.fixture(scope="module")
def paper():
    return analyse_published(Analysis(resamples=300))


def test_dots_of_the_paper_give_the_constants_of_its_curves(paper):
    law = paper["published_law"].set_index(["series", "model"])
    for size, (a, b, ceiling) in DRAWN.items():
        for series in ("fig01 dots", "fig01 curves"):
            row = law.loc[series, f"qwen2.5-{size}"]
            assert (row["a"], row["b"]) == pytest.approx((a, b), abs=0.02)
            assert row["ceiling"] == pytest.approx(ceiling, abs=0.01)
    assert set(law.loc["fig01 dots"].index) == {f"qwen2.5-{size}" for size in SIZES}


def test_the_papers_baselines_differ_in_their_best_form(paper):
    forms = paper["published_forms"].set_index(["run", "form"])
    error = np.sqrt(forms["rss"] / forms["points"]) * 100
    # accuracy points: by the numbers an independent reading of Fig 11 gave
    small, large = "fig11--qwen2.5-7b--grpo", "fig11--qwen2.5-32b--grpo"
    assert error[small][["exponential", "linear", "square-root", "log"]].tolist() == pytest.approx(
        [1.33, 1.26, 0.94, 0.65], abs=0.06
    )
    assert error[large][["exponential", "linear", "square-root"]].tolist() == pytest.approx(
        [0.40, 0.52, 1.05], abs=0.15
    )
    assert error[small]["log"] < error[small]["exponential"]
    assert error[large]["exponential"] < error[large]["log"]


def test_the_papers_coefficients_are_nearly_linear_in_the_logarithm_of_size(paper):
    found = paper["published_size_law"].groupby("coefficient").first()
    assert found.loc["a", ["intercept", "slope"]].tolist() == pytest.approx([0.101, 0.046], abs=0.003)
    assert found.loc["b", ["intercept", "slope"]].tolist() == pytest.approx([0.333, 0.116], abs=0.003)
    values = paper["published_size_law"].pivot(index="model", columns="coefficient", values="value")
    assert values.loc["qwen2.5-0.5b"].tolist() == pytest.approx([0.044, 0.193], abs=0.01)
    for size, (a, b, _) in DRAWN.items():
        assert values.loc[f"qwen2.5-{size}"].tolist() == pytest.approx([a, b], abs=0.01)
    sizes = paper["published_size_law"].set_index("model")["non_embedding_parameters"]
    assert sizes["qwen2.5-7b"].tolist() == pytest.approx([6.53e9] * 2, rel=0.01)


def test_fixed_and_across_files_are_those_that_stages_write(paper):
    assert set(paper) == {name for name in FIXED if name.startswith("published")}
    assert set(STUDIES) == set(FILES)
    assert set().union(*FILES.values()) <= set(RUN_ANALYSES)
    assert not (set(FILES) | set(FIXED)) & set(RUN_ANALYSES)  # told apart by their stems


def test_readings_are_joined_only_where_entropies_stand_close_on_both_sides():
    def rows(quantity, steps, values):
        return pd.DataFrame({"series": "KL-Cov", "quantity": quantity, "step": steps, "value": values})

    entropy = rows("entropy", [8, 16, 40, 120, 128], [0.6, 0.5, 0.2, 0.1, 0.08])
    accuracy = rows("accuracy_percent", [4, 16, 28, 56, 124, 136], [20.0, 25.0, 30.0, 35.0, 40.0, 45.0])
    found = joined(pd.concat([accuracy, entropy]), "fig", "m", "t")
    # 4 and 136 have no reading on one side, 56 lies in a gap of 80 steps
    assert found["step"].tolist() == [16, 28, 124]
    assert found[ENTROPY].tolist() == pytest.approx([0.5, 0.35, 0.09])
    assert found[ACCURACY].tolist() == [0.25, 0.30, 0.40]
    assert set(found["run"]) == {"fig--m--kl-cov"}


def test_every_accuracy_that_is_joined_was_read_off_the_picture():
    frame = published.load("fig11_qwen2.5-7b")
    found = joined(frame, "fig11", "qwen2.5-7b", "dapo-math")
    read = frame[frame["quantity"] == "accuracy_percent"].set_index(["series", "step"])["value"]
    by_name = {name.lower(): name for name in frame["series"].unique()}
    for row in found.itertuples():
        assert 100 * found.at[row.Index, ACCURACY] == pytest.approx(read[by_name[row.method], row.step])
    assert found.groupby("method").size().min() > 50


def test_dots_are_put_in_order_of_falling_entropy():
    found = dots(published.load("fig01_right_qwen2.5"), "fig01", "math")
    for _, run in found.groupby("run"):
        assert run["step"].tolist() == list(range(len(run)))
        assert run[ENTROPY].is_monotonic_decreasing


EXPERIMENT = """
title: t
data:
  train: {kind: arithmetic, split: train, operands: [2, 2], problems: 20}
  validation: {kind: arithmetic, split: validation, operands: [2, 2], problems: 20}
validation: validation
models:
  nano: {kind: tiny, layers: 1, width: 16, heads: 1, kv_heads: 1, warmup: {steps: 1}}
methods: {grpo: {objective: {name: ppo-clip}}}
training: {steps: 1, prompts: 2, samples: 2, updates: 1, learning_rate: 0.001, max_response: 4}
runs: [{models: [nano], train_sets: [train], methods: [grpo], seeds: [1]}]
evaluation: {max_response: 4, benchmarks: {test: {data: validation, protocols: [greedy]}}}
analysis: {resamples: 50}
"""


def test_a_study_reads_the_files_of_its_runs_and_writes_one(tmp_path):
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    random, frames = np.random.default_rng(1), []
    for method in ("grpo", "kl-cov"):
        path = tmp_path / method / "curves.parquet"
        path.parent.mkdir()
        curves_of(run_points(*training(20, 0.0, random), method)).to_parquet(path)
        frames.append(str(path))
    output = tmp_path / "ceiling.parquet"
    study(tmp_path / "e.yaml", "ceiling", "fig", frames, output, tmp_path / "results")
    assert pd.read_parquet(output)["method"].tolist() == ["kl-cov"]
    assert list((tmp_path / "results/records/study").glob("*.json"))
    with pytest.raises(ValueError, match="no study is named 'x'; there are size_law, common_law, ceiling"):
        study(tmp_path / "e.yaml", "x", "fig", frames, output, tmp_path)
