"""Groups of runs with validation sets, benchmarks and training settings of their own, and joined data sets."""

import copy
import json

import pandas as pd
import pytest
import yaml
from planned_experiment import RAW, code_too

from entropy_mechanism.config import ConfigError
from entropy_mechanism.stages.prepare import prepare


def test_runs_are_validated_and_tested_on_what_their_group_names(planned):
    plan = planned(code_too)
    assert plan.validations == {
        "nano--train--grpo--s1": "validation",
        "nano--code--grpo--s1": "code-validation",
        "nano--long--kl-cov--s1": "validation",
    }
    asked = {name: plan.benchmarks(name) for name in plan.policies}
    assert asked == {
        "nano--base": ["easy", "code"],
        "nano--train--grpo--s1": ["easy"],
        "nano--code--grpo--s1": ["code"],
    }
    assert plan.benchmark_sets == {
        ("easy", "code"): ["nano--base"],
        ("easy",): ["nano--train--grpo--s1"],
        ("code",): ["nano--code--grpo--s1"],
    }
    assert [policy.name for policy in plan.shown_policies("table2")] == list(asked)
    assert plan.tested_sets == ["validation", "code-validation", "test", "code-test"]


def test_a_run_is_compared_only_with_policies_that_answered_its_benchmarks(planned):
    def edit(raw):
        code_too(raw)
        raw["evaluation"]["compare_with"] = ["base", "grpo"]
        raw["runs"].append(raw["runs"][0] | {"methods": ["kl-cov"], "benchmarks": ["easy", "code"]})

    plan = planned(edit)
    assert [policy.name for policy in plan.references("nano--train--kl-cov--s1")] == ["nano--base"]
    assert [policy.name for policy in plan.references("nano--code--grpo--s1")] == ["nano--base"]


def test_a_run_of_two_groups_answers_what_either_asks(planned):
    def edit(raw):
        code_too(raw)
        raw["runs"].append({key: value for key, value in raw["runs"][0].items() if key != "benchmarks"})

    assert planned(edit).benchmarks("nano--train--grpo--s1") == ["easy", "code"]


def test_a_group_changes_training_for_its_runs_and_a_method_has_the_last_word(planned):
    def edit(raw):
        code_too(raw)
        raw["runs"][1]["training"] = {"steps": 9, "samples": 5}

    plan = planned(edit)
    settings = {name: plan.run_config(name).training for name in plan.runs}
    assert (settings["nano--code--grpo--s1"].steps, settings["nano--code--grpo--s1"].samples) == (9, 6)
    assert (settings["nano--train--grpo--s1"].steps, settings["nano--train--grpo--s1"].samples) == (4, 6)


def test_null_switches_off_what_the_experiment_has(planned):
    def edit(raw):
        raw["training"]["importance_cap"] = 2.0
        raw["methods"]["on-policy"]["training"]["importance_cap"] = None

    plan = planned(edit)
    written = plan.experiment.model_dump(mode="json")["methods"]["on-policy"]["training"]
    assert written["importance_cap"] is None
    assert "steps" not in written  # another experiment's report tells what is null from what is left out
    caps = {run.method: run.training.importance_cap for run in map(plan.run_config, plan.runs)}
    assert caps.pop("on-policy") is None
    assert set(caps.values()) == {2.0}


def joined(raw):
    code_too(raw)
    raw["data"]["all"] = {"kind": "joined", "parts": ["validation", "code-validation"], "prompt": "paper-eval"}
    raw["validation"] = "all"


def test_a_joined_set_brings_its_parts_and_its_own_prompt(planned):
    plan = planned(joined)
    assert plan.validations["nano--train--grpo--s1"] == "all"
    assert plan.run_config("nano--train--grpo--s1").validation_prompt == "paper-eval"
    assert plan.experiment.parts_of("all") == ["validation", "code-validation"]
    sets = plan.data_sets
    assert {"validation", "code-validation", "all"} <= set(sets)
    assert max(sets.index("validation"), sets.index("code-validation")) < sets.index("all")


def test_preparing_a_joined_set_puts_its_parts_together(tmp_path):
    raw = copy.deepcopy(RAW)
    joined(raw)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    frames = {}
    for name, parts in (("validation", []), ("code-validation", []), ("all", ["validation", "code-validation"])):
        files = [tmp_path / f"{part}.parquet" for part in parts]
        prepare(path, name, files, tmp_path / f"{name}.parquet", tmp_path / f"{name}.json", tmp_path / "results")
        frames[name] = pd.read_parquet(tmp_path / f"{name}.parquet")
    assert frames["all"]["id"].tolist() == [*frames["validation"]["id"], *frames["code-validation"]["id"]]
    assert (frames["all"]["tests"] == "").sum() == len(frames["validation"])
    facts = json.loads((tmp_path / "all.json").read_text())
    assert facts["parts"] == {"validation": 50, "code-validation": 50}
    one, places = [tmp_path / "validation.parquet"], (tmp_path / "x.parquet", tmp_path / "x.json")
    with pytest.raises(ValueError, match="--parts: found 1 files"):
        prepare(path, "all", one, *places, tmp_path / "results")


def parts(names, **more):
    def edit(raw):
        joined(raw)
        raw["data"]["all"]["parts"] = names
        raw["data"] |= more

    return edit


def group(index, **changes):
    def edit(raw):
        code_too(raw)
        raw["runs"][index] |= changes

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (group(1, validation="code-valid"), r"runs\[1\].validation: 'code-valid' is not defined in data.*mean"),
        (group(1, benchmarks=["cod"]), r"runs\[1\].benchmarks\[0\]: 'cod' is not defined in evaluation.bench"),
        (group(1, validation="code"), r"runs\[1\].validation: 'code' may hold problems of 'code'"),
        (group(1, training={"stepz": 3}), r"runs\[1\].training.stepz: unknown key"),
        (group(1, training={"steps": None}), r"runs\[1\].training.steps: found nothing"),
        (
            group(0, training={"samples": 1}, methods=["plain"]),
            r"runs\[0\].training.samples: found 1; .*grpo compa",
        ),
        (
            parts(["validation", "tset"]),
            r"data.all.parts\[1\]: 'tset' is not a data set that is not joined itself",
        ),
        (parts(["validation", "all"]), r"data.all.parts\[1\]: 'all' is not a data set that is not joined itself"),
        (parts(["test", "test"]), r"data.all.parts: 'test' is written twice"),
        (parts(["validation", "long"]), r"validation: 'all' may hold problems of '(train|long)', which runs are"),
        (group(1, train_sets=["train"]), r"runs\[1\].validation: found 'code-validation' for nano--train--grpo"),
        (
            lambda raw: (code_too(raw), [one.update(benchmarks=[]) for one in raw["runs"]]),
            r"tables.table2: shows scores, and every run it shows has `benchmarks: \[\]`",
        ),
    ],
)
def test_validations_and_benchmarks_that_cannot_be_are_refused(planned, edit, message):
    with pytest.raises(ConfigError, match=message):
        planned(edit)
