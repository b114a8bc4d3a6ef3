"""What is read from an experiment file and from the site settings."""

from typing import get_args

import pytest
import yaml
from valid_experiment import VALID, edited

from entropy_mechanism import schema, settings
from entropy_mechanism.config import (
    ConfigError,
    Experiment,
    FigureName,
    Site,
    TableName,
    experiment_path,
    load_experiment,
    load_site,
    read_run_config,
)
from entropy_mechanism.figures import registry
from entropy_mechanism.plan import Plan
from entropy_mechanism.settings import Strict


def test_generated_and_published_sets_may_stand_side_by_side(tmp_path):
    raw = edited("data/hard", {"kind": "hub", "source": "gsm8k-test", "limit": 5})
    raw["data"]["train"] = {"kind": "hub", "source": "gsm8k-train"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    data = load_experiment(path).data
    assert not any(data[a].overlaps(data[b]) for a in data for b in data if a != b)
    assert all(settings.overlaps(settings) for settings in data.values())


def load(tmp_path, raw):
    path = tmp_path / "mine.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False))
    return load_experiment(path)


def test_extends_takes_over_what_it_does_not_change(tmp_path):
    methods = load(tmp_path, VALID).methods
    assert methods["kl-cov"].training.weight_decay == 0.1
    strong = methods["kl-cov-strong"].objective
    assert (strong.name, strong.fraction, strong.coefficient) == ("kl-cov", 0.02, 10.0)


def test_another_objective_replaces_the_inherited_one_whole(tmp_path):
    raw = edited("methods/grpo/objective", {"name": "ppo-clip", "clip_high": 0.28})
    objective = load(tmp_path, raw).methods["clip-cov"].objective
    assert (objective.name, objective.clip_high) == ("clip-cov", 1.0)


@pytest.mark.parametrize("written", ["4e-4", "4.0e-4", "0.0004", "4E-04"])
def test_a_number_is_read_however_it_is_written(tmp_path, written):
    text = yaml.safe_dump(VALID).replace("learning_rate: 0.001", f"learning_rate: {written}")
    assert load(tmp_path, text).training.learning_rate == 4e-4


def test_an_experiment_cannot_be_changed(tmp_path):
    experiment = load(tmp_path, VALID)
    with pytest.raises(ValueError, match="frozen"):
        experiment.training.steps = 7


def test_a_run_config_survives_being_written(tmp_path):
    config = Plan(load(tmp_path, VALID)).run_config("nano--train--kl-cov--s2")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    assert read_run_config(path) == config
    path.write_text(path.read_text().replace("samples:", "sampels:"))
    with pytest.raises(ConfigError, match=r"run.yaml: .*training.sampels: unknown key; .*did you mean 'samples'"):
        read_run_config(path)


# --- the site -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"result": "x"},
            f"result: unknown key; allowed: {', '.join(Site.model_fields)} (did you mean 'results'?)",
        ),
        ({"results": 5}, "results: found 5; allowed: text"),
        ({"results": ""}, "results: found ''; allowed: text that is not empty"),
        ({"experiment": None}, "experiment: found nothing; allowed: text"),
        (
            {"tracking_uri": "https://me:hunter2@host/path"},
            "tracking_uri: found https://***@host/path, an address with credentials in it, which everyone on the "
            "machine could read in the list of processes; allowed: an address without them. Put them into the "
            "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (docs/tracking.md)",
        ),
        (
            {"shared_store": "results/store"},
            "shared_store: found 'results/store', which is inside the results folder; allowed: a folder outside "
            "it, which others can reach",
        ),
        ({"shared_store": ""}, "shared_store: found ''; allowed: text that is not empty"),
    ],
)
def test_a_wrong_site_setting_is_named(change, expected):
    with pytest.raises(ConfigError) as caught:
        load_site({"experiment": "tiny", "results": "results"} | change)
    assert str(caught.value) == f"config/config.yaml or --config: {expected}"


def test_an_experiment_is_found_by_name_or_path(tmp_path):
    for name in ("smoke", "tiny"):
        (tmp_path / f"{name}.yaml").touch()
    assert experiment_path("smoke", tmp_path) == tmp_path / "smoke.yaml"
    assert experiment_path("elsewhere/mine.yaml", tmp_path).as_posix() == "elsewhere/mine.yaml"
    with pytest.raises(ConfigError) as caught:
        experiment_path("smok", tmp_path)
    text = str(caught.value)
    assert "experiment: 'smok' is not in" in text
    assert "allowed: smoke, tiny (did you mean 'smoke'?)" in text


@pytest.mark.parametrize("stem", ["store", "records", "mlruns", "mlartifacts", "My Study", "a{b}", ""])
def test_an_experiment_file_must_be_able_to_name_a_results_folder(stem):
    with pytest.raises(ConfigError, match="results are kept under the file's name"):
        experiment_path(f"/elsewhere/{stem}.yaml")


def test_every_drawable_figure_and_table_can_be_configured():
    assert get_args(FigureName) == tuple(registry.FIGURES)
    assert get_args(TableName) == tuple(registry.TABLES)


def test_every_setting_has_a_help_text():
    classes = [value for value in vars(settings).values() if isinstance(value, type)]
    sections = [Experiment, Site, *(value for value in classes if issubclass(value, Strict))]
    undescribed = {
        f"{section.__name__}.{name}"
        for section in sections
        for name in section.model_fields
        if name not in schema.help_texts(section) and name not in ("name", "kind")
    }
    assert not undescribed
