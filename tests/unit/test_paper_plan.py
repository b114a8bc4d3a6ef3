"""The paper's experiment: its models, data, settings and what its figures and tables show."""

from pathlib import Path
from typing import get_args

import pytest

from entropy_mechanism.config import load_experiment
from entropy_mechanism.hub import SourceName
from entropy_mechanism.plan import Plan

EXPERIMENTS = Path(__file__).parents[2] / "config/experiments"
QWEN = [f"qwen2.5-{size}" for size in ("0.5b", "1.5b", "3b", "7b", "32b")]
OTHERS = ["mistral-7b", "mistral-nemo-12b", "llama3.2-3b", "llama3.1-8b", "deepseek-math-7b"]


@pytest.fixture(scope="module")
def paper():
    return Plan(load_experiment(EXPERIMENTS / "paper.yaml"))


def test_the_papers_experiment_covers_its_data_and_table_2(paper):
    data = paper.experiment.data
    sources = {settings.source for settings in data.values() if settings.kind == "hub"}
    assert sources == set(get_args(SourceName)) - {"dapo-math-raw"}
    benchmarks = {
        data[benchmark.data].source: benchmark.protocols
        for benchmark in paper.experiment.evaluation.benchmarks.values()
    }
    sampled, greedy = ["avg@32"], ["greedy"]
    assert benchmarks == {
        "aime24": sampled, "aime25": sampled, "amc": sampled, "math500": greedy, "omni-math-rule": greedy,
        "olympiadbench": greedy, "minerva": greedy,
    }  # fmt: skip
    assert paper.experiment.evaluation.temperature == 0.6
    assert [run.name for run in paper.shown("fig11")] == [run.name for run in paper.shown("table2")]
    assert [(run.model, run.method) for run in paper.shown("fig11")] == [
        *(("qwen2.5-7b", method) for method in ("grpo", "clip-higher", "clip-cov", "kl-cov")),
        *(("qwen2.5-32b", method) for method in ("grpo", "clip-higher", "clip-cov", "kl-cov-32b")),
    ]
    configs = [paper.run_config(run.name) for run in paper.shown("fig11")]
    assert {
        config.model: config.objective.fraction for config in configs if config.objective.name == "kl-cov"
    } == {"qwen2.5-7b": 2e-3, "qwen2.5-32b": 2e-4}
    settings = {
        config.model: (
            config.training.learning_rate,
            config.training.steps * config.training.updates,
            config.training.max_response,
            config.training.prompts // config.training.updates * config.training.samples,
        )
        for config in configs
    }
    assert settings == {"qwen2.5-7b": (5e-7, 2600, 8192, 256), "qwen2.5-32b": (1e-6, 1088, 8192, 256)}
    assert {paper.validations[config.run] for config in configs} == {"all-tests"}


def test_the_papers_law_has_eleven_models_on_mathematics_and_code(paper):
    law = {(run.model, run.train_set) for run in paper.runs.values() if run.method == "grpo"}
    large = [*QWEN, "mistral-small-24b"]
    assert {(model, "eurus2-math") for model in large} <= law
    assert {(model, "gsm8k-train") for model in OTHERS} <= law
    assert {(model, "code") for model in large + OTHERS} <= law
    assert paper.experiment.parts_of("code") == ["eurus2-code", "kodcode", "acecode"]
    assert {paper.validations[run.name] for run in paper.runs.values() if run.train_set == "code"} == {
        "code-tests"
    }
    instruct = {run.model for run in paper.runs.values() if run.model.endswith("instruct")}
    assert instruct == {f"qwen2.5-{size}-instruct" for size in ("1.5b", "3b", "7b")}
    training = paper.run_config("qwen2.5-0.5b--eurus2-math--grpo--s1").training
    assert (training.learning_rate, training.steps * training.updates) == (5e-7, 2400)
    assert training.prompts * training.max_batches == 512
    fig13 = {run.train_set for run in paper.runs.values() if (run.model, run.method) == ("qwen2.5-7b", "grpo")}
    assert fig13 == {"eurus2-math", "eurus2-math-difficult", "gsm8k", "dapo-math-17k", "dapo-math", "code"}


def test_the_papers_fig13_compares_runs_that_differ_only_in_what_they_are_trained_on(paper):
    shown = paper.shown("fig13")
    assert [paper.experiment.data[run.train_set].source for run in shown] == [
        "eurus2-math", "dapo-math", "gsm8k-train", "eurus2-math"
    ]  # fmt: skip
    assert {paper.validations[run.name] for run in shown} == {"math-tests"}
    settings = [paper.run_config(run.name).model_dump(exclude={"run", "train_set"}) for run in shown]
    assert all(one == settings[0] for one in settings[1:])


def test_every_figure_and_table_of_the_paper_shows_the_runs_that_the_paper_shows(paper):
    items = {**paper.experiment.figures, **paper.experiment.tables}
    assert {f"fig{number:02d}" for number in range(1, 15)} | {"table1", "table2"} <= set(items)
    counts = {item: len(paper.shown(item)) for item in items}
    assert [counts[f"fig{number:02d}"] for number in range(1, 15)] == [
        5,
        11,
        11,
        11,
        8,
        4,
        10,
        1,
        5,
        5,
        8,
        10,
        4,
        3,
    ]
    assert (counts["table1"], counts["table2"]) == (1, 8)
    shown = {run.name for item in items if item != "theory" for run in paper.shown(item)}
    assert shown == set(paper.runs)


def test_the_papers_sweeps_have_its_coefficients(paper):
    configs = [paper.run_config(name) for name in paper.runs]
    entropy = {config.regularisation.entropy for config in configs}
    assert entropy == {0, 1e-4, 1e-3, 5e-3, 1e-2}
    reference = {config.regularisation.reference_kl for config in configs}
    assert reference == {0, 1e-3, 1e-2, 5e-2, 1e-1}
    assert {config.regularisation.kl_estimator for config in configs if config.regularisation.reference_kl} == {
        "k3"
    }
    seven = [config for config in configs if (config.model, config.train_set) == ("qwen2.5-7b", "dapo-math")]
    ratios = {config.objective.fraction for config in seven if config.objective.name == "clip-cov"}
    assert ratios == {2e-4, 4e-4, 5e-4, 7e-4}
    coefficients = {config.objective.coefficient for config in seven if config.objective.name == "kl-cov"}
    assert coefficients == {0, 0.05, 0.1, 0.5, 1}
    estimators = {config.advantage.estimator for config in configs if config.train_set == "eurus2-math"}
    assert estimators == {"grpo", "rloo", "reinforce++", "prime"}
    on_policy = paper.run_config("qwen2.5-7b--eurus2-math--on-policy--s1")
    assert (on_policy.training.updates, on_policy.training.steps) == (1, 2060)
    assert (on_policy.objective.name, on_policy.training.record_tokens_every) == ("policy-gradient", 8)


def test_models_end_responses_with_tokens_of_their_own(paper):
    stops = {config.model: config.training.stop for config in map(paper.run_config, paper.runs)}
    assert stops["qwen2.5-32b"] == stops["qwen2.5-7b-instruct"] == ["<|endoftext|>", "<|im_end|>"]
    assert stops["mistral-small-24b"] == stops["mistral-7b"] == stops["mistral-nemo-12b"] == ["</s>"]
    assert stops["llama3.2-3b"] == stops["llama3.1-8b"] == ["<|end_of_text|>"]
    assert stops["deepseek-math-7b"] == ["<\uff5cend\u2581of\u2581sentence\uff5c>"]
