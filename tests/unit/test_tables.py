"""Tables hold the right numbers and show them as they are meant to be read."""

import numpy as np
import pandas as pd
import pytest
from figure_frames import FINAL

from entropy_mechanism.figures import averages, comparison, selection, style, table1, table2


def test_table1_puts_seed_means_beside_the_printed_values(many):
    table = table1.table(many).set_index("top_fraction")
    assert table[table1.PAPER].tolist() == [5.654, 3.112, 1.385, 0.351, 0.152, 0.003]
    assert table.loc[0.2, "tiny-s"] == pytest.approx(0.8 * 1.5)
    assert table.loc[1.0, "tiny-s"] == pytest.approx(0.01)
    assert "| top 0.02 % | 5.654 |" in style.markdown(table1.display(table1.table(many)))


def test_table2_has_a_row_per_policy_with_intervals_and_both_averages(many):
    table = table2.table(many)
    assert table[["model", "method"]].to_numpy().tolist()[:3] == [
        ["tiny-s", m] for m in ("base", "grpo", "kl-cov")
    ]
    ours = table[table["source"] == "ours"]
    assert len(ours) == 4 * 3
    assert table2.benchmarks_of(table) == ["easy greedy", "hard greedy", "pooled", "macro"]
    row = table[(table["model"] == "tiny-s") & (table["method"] == "kl-cov")].iloc[0]
    assert row["easy greedy"] == pytest.approx((0.82 + 0.92) / 2)
    assert (row["easy greedy_low"], row["easy greedy_high"]) == pytest.approx((0.82, 0.92))
    assert row["seeds"] == 2


def test_table2_shows_clean_scores_beside_the_others_where_problems_were_left_out(frames):
    scores = frames["scores"].copy()
    hard = scores["benchmark"] == "hard"
    scores.loc[hard, "clean_problems"] = 60
    scores.loc[hard, "clean_score"] -= 0.2
    whole = table2.table(frames | {"scores": scores})
    table = whole[whole["source"] == "ours"]
    assert table["hard greedy_contained"].tolist() == [40] * len(table)
    assert table["easy greedy_contained"].tolist() == [0] * len(table)
    assert table["hard greedy_clean"].to_numpy() == pytest.approx(table["hard greedy"].to_numpy() - 0.2)
    assert table["easy greedy_clean"].tolist() == table["easy greedy"].tolist()
    header = style.markdown(table2.display(whole)).splitlines()[0]
    assert "| hard greedy | hard greedy, clean |" in header
    assert "easy greedy, clean" not in header


def test_table2_sets_the_published_rows_below_ours(frames):
    table = table2.table(frames)
    paper = table[table["source"] == "paper"].set_index(["model", "method"])
    assert len(paper) == 8
    assert paper.loc[("Qwen2.5-7B", "kl-cov"), "pooled"] == pytest.approx(0.406)
    assert paper.loc[("Qwen2.5-7B", "kl-cov"), "macro"] == pytest.approx(0.4109, abs=1e-4)
    assert paper["easy greedy"].isna().all()  # no benchmark of the paper's
    renamed = frames["scores"].replace({"benchmark": {"easy": "math-500", "hard": "aime24"}})
    paper = table2.table(frames | {"scores": renamed}).set_index(["source", "model", "method"])
    assert paper.loc[("paper", "Qwen2.5-7B", "grpo"), "math-500 greedy"] == pytest.approx(0.788)
    assert pd.isna(paper.loc[("paper", "Qwen2.5-7B", "grpo"), "aime24 greedy"])  # theirs is avg@32


def benchmarks_of_their_own(frames):
    """The base model and KL-Cov answered one benchmark more, with 300 samples, all right."""
    scores = frames["scores"]
    more = scores[scores["method"].isin(["base", "kl-cov"]) & (scores["benchmark"] == "easy")]
    numbers = {"benchmark": "extra", "score": 1.0, "clean_score": 1.0, "samples": 300, "clean_samples": 300}
    return pd.concat([scores, more.assign(**numbers)], ignore_index=True)


def test_averages_are_over_the_benchmarks_that_all_policies_answered(frames):
    scores = averages.shared(benchmarks_of_their_own(frames)).set_index(["method", "benchmark"])
    assert scores.loc[("kl-cov", "pooled"), "score"] == pytest.approx((0.86 + 0.44) / 2)
    assert scores.loc[("base", "macro"), "score"] == pytest.approx(0.2)
    assert pd.isna(scores.loc[("kl-cov", "pooled"), "low"])
    assert scores.loc[("grpo", "pooled"), ["score", "low"]].tolist() == pytest.approx(
        [0.6, 0.55]
    )  # as it was computed


def test_policies_without_a_common_benchmark_have_no_averages(frames):
    scores = frames["scores"]
    apart = scores["benchmark"].isin(["easy", "hard"]) & (scores["method"] == "kl-cov")
    scores = scores.assign(benchmark=scores["benchmark"].where(~apart, scores["benchmark"] + "-code"))
    assert not set(averages.shared(scores)["benchmark"]) & {"pooled", "macro"}
    shown = style.markdown(table2.display(table2.table(frames | {"scores": scores})))
    assert "average" not in shown
    assert "Paper" not in shown


def test_differences_of_unlike_averages_are_left_out(frames):
    table = comparison.table(frames)
    assert {"pooled", "macro"} <= set(table["benchmark"])
    rows = frames["comparison"]
    dropped = rows[~((rows["method"] == "grpo") & (rows["benchmark"] == "hard"))]
    assert set(comparison.table(frames | {"comparison": dropped})["benchmark"]) == {"easy", "hard"}


def test_the_selection_table_compares_with_grpo_seed_by_seed(several):
    table = selection.table(several).set_index(["train_set", "method"])
    assert list(table.loc["chains"].index) == [
        "grpo",
        "clip-cov",
        "kl-cov",
        "clip-cov-0.5",
        "kl-cov-0",
        "kl-cov-old",
    ]
    row = table.loc["chains", "kl-cov"]
    assert row[["scope", "policy", "penalty"]].tolist() == ["minibatch", "current", "abs"]
    assert (row["fraction"], row["coefficient"], row["realised"]) == pytest.approx((0.03, 2.0, 0.019))
    assert table.loc[("chains", "clip-cov-0.5"), "fraction"] == pytest.approx(0.005)
    assert table.loc[("chains", "clip-cov"), ["covariance_low", "covariance_high"]].tolist() == [1, 15]
    steps = np.arange(25)[-3:]  # the last tenth of 25 rows
    ends = {
        (method, seed): np.mean(end + (0.5 - end) * np.exp(-steps / 6))
        for method in ("grpo", "kl-cov")
        for seed in (0, 1)
        for end in [FINAL[method] * (1 + 0.1 * seed)]
    }
    assert row["entropy"] == pytest.approx((ends["kl-cov", 0] + ends["kl-cov", 1]) / 2)
    differences = [ends["kl-cov", seed] - ends["grpo", seed] for seed in (0, 1)]
    assert row["entropy_difference"] == pytest.approx(np.mean(differences))
    assert (row["entropy_difference_low"], row["entropy_difference_high"]) == pytest.approx(tuple(differences))
    assert row["entropy_difference_seeds"] == 2
    assert pd.isna(table.loc[("chains", "grpo"), "entropy_difference"])


def test_the_selection_table_does_not_compare_runs_of_other_length_or_seed(several):
    runs = several["runs"].copy()
    runs.loc[(runs["method"] == "kl-cov") & (runs["seed"] == 0), "steps"] = 7
    table = selection.table(several | {"runs": runs}).set_index(["train_set", "method"])
    assert table.loc[("chains", "kl-cov"), "entropy_difference_seeds"] == 1
    assert (
        "[" not in selection.display(table.reset_index().query("method == 'kl-cov'"))["Entropy / to GRPO"].iloc[0]
    )


def test_table2_prints_the_best_of_each_model_bold(frames):
    lines = style.markdown(table2.display(table2.table(frames))).splitlines()
    assert lines[0] == "| Model | Method | easy greedy | hard greedy | average, pooled | average, macro |"
    easy = {line.split(" | ")[1]: line.split(" | ")[2] for line in lines[2:]}
    assert [name for name, cell in easy.items() if cell.startswith("**")] == ["On-policy GRPO"]
    assert easy["On-policy GRPO"] == "**88.0** [83.0, 93.0]"
    assert easy["Base model"] == "20.0 [15.0, 25.0]"
