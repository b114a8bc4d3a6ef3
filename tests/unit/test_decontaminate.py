"""Which test problems a training set contains, and scores without them."""

import time

import numpy as np
import pandas as pd
import pytest
import yaml

from entropy_mechanism.config import ArithmeticSet, Decontamination
from entropy_mechanism.data.arithmetic import generate
from entropy_mechanism.data.decontaminate import contained, summary
from entropy_mechanism.data.problems import Problem, to_frame
from entropy_mechanism.stages.decontaminate import decontaminate
from entropy_mechanism.stages.score import score

FARM = "A farmer has twelve hens and each of them lays five eggs in a week"
LONG = f"{FARM} so how many eggs are there after three weeks"
TEMPLATE = (
    "The answer can be written as a fraction where m and n are relatively prime positive integers; "
    "find the sum of m and n."
)


def problems(*texts, name="x"):
    return [Problem(f"{name}:{i}", name, text, "1") for i, text in enumerate(texts)]


def found(tested, train, **settings):
    table = contained({"test": problems(*tested)}, problems(*train, name="t"), Decontamination(**settings))
    return list(zip(table["problem_id"], table["train_id"], table["match"], strict=True))


def test_the_same_text_is_found_however_it_is_set():
    assert found(["Find $x+1$ if x = 2."], ["What?", "find \\( x + 1\\)  if $x=2$"]) == [("x:0", "t:1", "exact")]


def test_a_short_text_must_be_whole_and_keep_its_signs():
    assert found(["Find $x+1$."], ["Find $x-1$.", "Find $x+1$ and $x+2$.", "Find $x+11$."]) == []
    assert found(["7+5-3"], ["7-5+3", "7+5-31"]) == []


def test_a_long_text_is_found_inside_another_and_with_a_word_changed():
    assert found([LONG], [f"Read this. {LONG}, and why?"]) == [("x:0", "t:0", "n-grams")]
    changed = LONG.replace("three", "four")
    assert found([LONG], [changed]) == [("x:0", "t:0", "n-grams")]
    assert found([LONG], [changed], share=1.0) == []
    assert found([LONG], [LONG.replace("five", "six").replace("week so", "day so")]) == []


def test_phrases_that_many_problems_share_do_not_count():
    tested = f"{LONG}. {TEMPLATE}"
    assert found([tested], [f"Toss a coin twice and look at the heads. {TEMPLATE}"]) == []


def test_shares_of_several_training_problems_do_not_add_up():
    words = LONG.split()
    halves = [" ".join(words[:17]), " ".join(words[-17:])]
    assert found([LONG], halves) == []
    assert found([LONG], [*halves, LONG]) == [("x:0", "t:2", "exact")]


def test_chinese_characters_are_words():
    text = "一个三角形的三个内角之比为一比二比三求最大内角的度数"
    assert found([text], [f"已知{text}，请作答"]) == [("x:0", "t:0", "n-grams")]


def test_the_training_problem_that_holds_most_is_named():
    assert found([LONG], [LONG.replace("three", "four"), f"{LONG} now", LONG.replace("weeks", "years")]) == [
        ("x:0", "t:1", "n-grams")
    ]


def test_the_share_is_that_of_the_n_grams():
    text, other = "a b c d e f g h", "a b c d e x y z"
    table = contained({"test": problems(text)}, problems(other), Decontamination(words=3, share=0.1))
    assert table["share"].tolist() == [3 / 6]


def test_arithmetic_sets_share_nothing():
    def drawn(split):
        return generate(ArithmeticSet(kind="arithmetic", split=split, operands=(2, 5), problems=800))

    table = contained({"test": drawn("test")}, drawn("train"), Decontamination())
    assert len(table) == 0
    assert list(summary(table, "train", {"test": 800})["contained"]) == [0]


def test_sets_of_the_papers_size_take_seconds():
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"word{i}" for i in range(3000)])

    def many(count, name):
        return problems(*(" ".join(vocabulary[rng.integers(3000, size=60)]) for _ in range(count)), name=name)

    tested, train = many(5000, "x"), many(17000, "t")
    train[7] = Problem("t:7", "t", tested[11].problem, "1")
    start = time.monotonic()
    table = contained({"test": tested}, train, Decontamination())
    assert table["problem_id"].tolist() == ["x:11"]
    assert time.monotonic() - start < 60


# --- the stages ---------------------------------------------------------------------------------------------

EXPERIMENT = {
    "title": "two benchmarks",
    "data": {
        "train": {"kind": "arithmetic", "split": "train", "operands": [2, 3], "problems": 10},
        "easy": {"kind": "arithmetic", "split": "test", "operands": [2, 2], "problems": 10},
        "hard": {"kind": "arithmetic", "split": "test", "operands": [3, 3], "problems": 10},
    },
    "validation": "easy",
    "models": {
        "nano": {"kind": "tiny", "layers": 1, "width": 8, "heads": 1, "kv_heads": 1, "warmup": {"steps": 1}}
    },
    "methods": {"grpo": {"objective": {"name": "ppo-clip"}}},
    "training": {"steps": 1, "prompts": 2, "samples": 2, "updates": 1, "learning_rate": 1e-3, "max_response": 8},
    "runs": [{"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1]}],
    "evaluation": {
        "max_response": 8,
        "benchmarks": {
            "first": {"data": "easy", "protocols": ["greedy"]},
            "second": {"data": "hard", "protocols": ["avg@2", "pass@2"]},
        },
    },
    "analysis": {"resamples": 50},
}


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def write(path, frame):
    frame.to_parquet(path, index=False)
    return path


def test_the_stage_writes_who_is_contained_where(experiment, tmp_path):
    train = write(tmp_path / "train.parquet", to_frame(problems("How many legs?", LONG, name="t")))
    easy = write(tmp_path / "easy.parquet", to_frame(problems("How many legs ?", "How many?", name="easy")))
    hard = write(tmp_path / "hard.parquet", to_frame(problems("Why?", name="hard")))
    output, table = tmp_path / "overlap.parquet", tmp_path / "overlap.csv"
    decontaminate(experiment, train, [f"easy={easy}", f"hard={hard}"], "train", output, table, tmp_path)
    assert pd.read_parquet(output)["problem_id"].tolist() == ["easy:0"]
    counts = pd.read_csv(table, keep_default_na=False)
    assert counts.to_dict("list") == {
        "train_set": ["train", "train"],
        "tested_set": ["easy", "hard"],
        "problems": [2, 1],
        "contained": [1, 0],
        "exact": [1, 0],
        "ids": ["easy:0", ""],
    }


def grades(correct, decoding):
    rows = [(f"p{i}", decoding, n, "1", c) for i, cs in enumerate(correct) for n, c in enumerate(cs)]
    return pd.DataFrame(rows, columns=["problem_id", "decoding", "sample", "answer", "correct"])


def overlap(*pairs):
    rows = [(name, problem, "t:0", "exact", 1.0) for name, problem in pairs]
    return pd.DataFrame(rows, columns=["tested_set", "problem_id", "train_id", "match", "share"])


@pytest.fixture
def scored(experiment, tmp_path):
    """The scores of a run, given files of contained problems."""
    first = write(tmp_path / "first.parquet", grades([[True], [True], [False], [False]], "greedy"))
    second = write(tmp_path / "second.parquet", grades([[True, True], [True, False]], "sampled"))

    def score_with(*overlaps):
        paths = [str(write(tmp_path / f"overlap{i}.parquet", frame)) for i, frame in enumerate(overlaps)]
        output = tmp_path / "scores.parquet"
        files = [f"first={first}", f"second={second}"]
        score(experiment, "nano--train--grpo--s1", files, paths, output, tmp_path)
        return pd.read_parquet(output).set_index(["benchmark", "protocol"])

    return score_with


def test_clean_scores_leave_out_what_was_trained_on(scored):
    table = scored(overlap(("easy", "p0"), ("hard", "p1")), overlap(("easy", "p1"), ("elsewhere", "p2")))
    assert table.loc[("first", "greedy"), ["score", "problems"]].tolist() == [0.5, 4]
    assert table.loc[("first", "greedy"), ["clean_score", "clean_problems"]].tolist() == [0.0, 2]
    assert table.loc[("second", "avg@2"), ["score", "clean_score"]].tolist() == [0.75, 1.0]
    assert table.loc[("second", "pass@2"), ["score", "clean_score", "clean_problems"]].tolist() == [1.0, 1.0, 1]
    pooled, macro = table.xs("pooled").iloc[0], table.xs("macro").iloc[0]
    assert (pooled["score"], pooled["clean_score"]) == (5 / 8, 2 / 4)
    assert (macro["score"], macro["clean_score"]) == (0.625, 0.5)
    assert (pooled["clean_problems"], pooled["clean_samples"]) == (3, 4)


def test_without_contained_problems_the_clean_scores_are_the_others(scored):
    table = scored(overlap())
    for column in ("problems", "samples", "score", "low", "high"):
        assert table[column].tolist() == table[f"clean_{column}"].tolist()


def test_a_benchmark_of_which_nothing_is_left_has_no_clean_score(scored):
    table = scored(overlap(("hard", "p0"), ("hard", "p1")))
    assert pd.isna(table.loc[("second", "avg@2"), "clean_score"])
    assert pd.isna(table.loc[("second", "avg@2"), "clean_problems"])
    assert table.xs("pooled")["clean_score"].tolist() == [0.5]
