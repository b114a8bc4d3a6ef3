"""What a run is, as figures and tables read it, is what its configuration and its training set say."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from entropy_mechanism import files
from entropy_mechanism.config import load_experiment
from entropy_mechanism.data.problems import Problem, task, to_frame
from entropy_mechanism.models import manifest
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.collect_curves import collect_curves

SMOKE = Path(__file__).parents[2] / "config/experiments/smoke.yaml"
ANSWER = Problem("a", "s", "1+1", "2")
PROGRAM = Problem("b", "s", "add 1", "", tests='{"kind": "stdin"}')


def problems(path, *rows):
    files.write_parquet(path, to_frame(rows))
    return path


@pytest.mark.parametrize(("rows", "expected"), [([ANSWER], "math"), ([ANSWER, PROGRAM], "code"), ([], "math")])
def test_a_set_with_tests_asks_for_code(tmp_path, rows, expected):
    assert task(problems(tmp_path / "set.parquet", *rows)) == expected


def test_a_file_from_before_there_were_tests_asks_for_math(tmp_path):
    files.write_parquet(tmp_path / "set.parquet", to_frame([ANSWER]).drop(columns="tests"))
    assert task(tmp_path / "set.parquet") == "math"


def test_a_run_is_described_by_its_settings(tmp_path):
    config = Plan(load_experiment(SMOKE)).run_config("nano--train--kl-cov--s1")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (tmp_path / "weights").mkdir()
    facts = dict.fromkeys(("steps", "gradient_steps", "parameters", "non_embedding_parameters", "seconds"), 7)
    manifest.write(tmp_path / "manifest.json", tmp_path / "weights", facts)
    files.write_parquet(tmp_path / "metrics.parquet", pd.DataFrame({"step": [0, 1], "length/mean": [2.0, 3.0]}))
    collect_curves(
        tmp_path / "run.yaml",
        tmp_path / "metrics.parquet",
        tmp_path / "manifest.json",
        problems(tmp_path / "train.parquet", PROGRAM),
        tmp_path / "runs.parquet",
        tmp_path / "curves.parquet",
        tmp_path,
    )
    (row,) = pd.read_parquet(tmp_path / "runs.parquet").to_dict("records")
    settings = yaml.safe_load((tmp_path / "run.yaml").read_text())
    for part in ("advantage", "objective", "regularisation"):
        assert json.loads(row[part]) == settings[part]
    assert json.loads(row["objective"])["name"] == "kl-cov"
    assert row["learning_rate"] == settings["training"]["learning_rate"] == 4e-4
    assert (row["task"], row["device"], row["dtype"]) == ("code", "cpu", "float32")
    assert (row["run"], row["method"], row["seed"], row["updates_per_rollout"]) == (config.run, "kl-cov", 1, 2)
    curves = pd.read_parquet(tmp_path / "curves.parquet")
    assert curves["run"].tolist() == [config.run] * 2
    assert curves["length/mean"].tolist() == [2.0, 3.0]
