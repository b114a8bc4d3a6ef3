"""A wrong experiment stops with one readable line that names the file, the key and what is allowed."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from valid_experiment import VALID, edited
from wrong_settings import WRONG

from entropy_mechanism.config import ConfigError, load_experiment
from entropy_mechanism.config_errors import MOST_FAILURES


@pytest.fixture
def message(tmp_path):
    """The message of the ConfigError that an experiment file with this content raises, without the file."""

    def read(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        with pytest.raises(ConfigError) as caught:
            load_experiment(path)
        text = str(caught.value)
        assert "\n" not in text, "more than one line"
        assert text.startswith(str(path)), "the file is not named"
        assert len(text) < len(str(path)) + 500, "too long to read"
        assert "pydantic" not in text
        assert "Input should" not in text
        return text.removeprefix(str(path))

    return read


def test_one_run_with_token_records_is_enough_but_it_must_be_of_the_right_kind(message, tmp_path):
    raw = edited("figures", {"fig08": {}}) | {"tables": {"table1": {}}}
    raw["methods"]["kl-cov"]["training"] = {"record_tokens_every": 5}
    assert "figures.fig08: is drawn from token records" in message(raw)  # KL-Cov makes two updates here
    raw["methods"]["on-policy"]["training"]["record_tokens_every"] = 1
    path = tmp_path / "recorded.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert load_experiment(path).training_of("on-policy").record_tokens_every == 1


def test_the_base_of_all_edits_is_valid(tmp_path):
    path = tmp_path / "valid.yaml"
    path.write_text(yaml.safe_dump(VALID))
    assert load_experiment(path).title == VALID["title"]


@pytest.mark.parametrize(
    ("path", "value", "fragments"), [(p, v, f) for p, v, *f in WRONG.values()], ids=list(WRONG)
)
def test_a_wrong_setting_is_named_with_what_is_allowed(message, path, value, fragments):
    text = message(edited(path, value))
    assert all(fragment in text for fragment in fragments), text


MISTAKEN = {
    "another word for a GPU": (
        "compute",
        {"nano": {"device": "gpu"}},
        ": compute.nano.device: found 'gpu'; allowed: cpu, cuda (did you mean 'cuda'?)",
    ),
    "a table among figures": ("figures/table1", {}, ": figures: table1 is a table; it belongs under `tables`"),
    "a figure among tables": ("tables/fig01", {}, ": tables: fig01 is a figure; it belongs under `figures`"),
    "an own figure among tables": ("tables/own_x", {}, ": tables: own_x is a figure; it belongs under `figures`"),
    "a folder as id": (
        "models/mine",
        {"kind": "hub", "id": "/data/my-model"},
        ": models.mine.id: found '/data/my-model'; allowed: a repository on the hub, such as Qwen/Qwen2.5-7B; "
        "a local folder goes into `folder`",
    ),
    "digest of a figure": ("figures/fig11/sha256", "0" * 64, ": figures.fig11.sha256: unknown key; "),
    "digest of an objective": (
        "methods/grpo/objective",
        {"name": "own", "code": "nowhere.py:f", "sha256": "0" * 64},
        ": methods.grpo.objective.sha256: unknown key; the project fills it in, from the file of `code`",
    ),
    "digest of an advantage": (
        "methods/grpo/advantage",
        {"estimator": "own", "code": "nowhere.py:f", "sha256": "0" * 64},
        ": methods.grpo.advantage.sha256: unknown key; ",
    ),
}


@pytest.mark.parametrize(("path", "value", "expected"), MISTAKEN.values(), ids=list(MISTAKEN))
def test_what_was_probably_meant_is_told(message, path, value, expected):
    assert message(edited(path, value)).startswith(expected)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("figures/fig11/x", 1),
        ("methods/grpo/advantage", {"x": 1}),
        ("methods/grpo/objective", {"name": "own", "x": 1}),
    ],
)
def test_keys_that_the_project_fills_in_are_not_among_those_allowed(message, path, value):
    text = message(edited(path, value))
    assert "unknown key; allowed: " in text
    assert "code" in text
    assert "sha256" not in text


FILES = {
    "a key twice": ("title: a\ndata: {}\ntitle: b\n", ":3: not valid YAML: key 'title' is written twice"),
    "a nested key twice": (
        "training:\n  steps: 1\n  prompts: 2\n  steps: 3\n",
        ":4: not valid YAML: key 'steps' is written twice",
    ),
    "not closed": ("data: {train: {kind: arithmetic}\ntitle: a\n", ":2: not valid YAML: expected ',' or '}'"),
    "a tab": ("data:\n\ttrain: 1\n", ":2: not valid YAML: found character '\\t' that cannot start any token"),
    "a list as a key": ("? [a]\n: b\n", ":1: not valid YAML: found unhashable key"),
    "an object": (
        "title: !!python/object:os.system {}\n",
        ":1: not valid YAML: could not determine a constructor",
    ),
    "a control character": ("title: \x01\n", ": not valid YAML: "),
    "empty": ("", ": the file is empty"),
    "comments only": ("# nothing\n", ": the file is empty"),
    "a list": ("- title\n- data\n", ": found a list; allowed: keys and values"),
    "text": ("title\n", ": found 'title'; allowed: keys and values"),
    "nothing known": ("{}", ": title: required key is missing | data: required key is missing | "),
}


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=list(FILES))
def test_a_file_that_is_not_an_experiment_is_refused_in_one_line(message, content, expected):
    assert message(content).startswith(expected)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("title: Überlänge".encode("latin-1"))
    for path, expected in (
        (tmp_path / "absent.yaml", "no such file"),
        (tmp_path, "Is a directory"),
        (latin, "not a text file in UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_experiment(path)
        assert str(caught.value) == f"{path}: {expected}"


def test_many_mistakes_stay_one_short_line(message):
    text = message(
        VALID | {"title": 1, "data": {name: {"kind": "arithmetic"} for name in "abcdefgh"}, "validation": 2}
    )
    failures = 1 + 8 * 3 + 1  # three more keys of a data set are required
    assert text.count(" | ") == MOST_FAILURES
    assert text.endswith(f" | and {failures - MOST_FAILURES} more")


def test_a_mistake_is_reported_where_it_is_written_and_not_in_the_methods_that_inherit_it(message):
    text = message(edited("methods/grpo/training/weight_decay", -1))
    assert text == ": methods.grpo.training.weight_decay: found -1; allowed: 0.0 or more"
    own = message(edited("methods/kl-cov-strong/objective/coefficient", -1))
    assert own == ": methods.kl-cov-strong.objective.coefficient: found -1; allowed: 0.0 or more"


def test_a_misspelt_required_key_is_shown_with_its_correction(message):
    raw = edited("training/stepz", 6)
    del raw["training"]["steps"]
    text = message(raw)
    assert text.startswith(": training.stepz: unknown key;")
    assert "(did you mean 'steps'?) | training.steps: required key is missing" in text


def problem_with(path):
    try:
        load_experiment(path)
    except ConfigError as error:
        return str(error)
    return None


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@hypothesis_settings(deadline=None)
@given(VALUES, st.data())
def test_no_value_at_any_place_escapes_as_another_error(tmp_path_factory, value, data):
    raw = copy.deepcopy(VALID)
    section = raw
    while True:
        key = data.draw(st.sampled_from(list(section) if isinstance(section, dict) else list(range(len(section)))))
        if not isinstance(section[key], dict | list) or not section[key] or data.draw(st.booleans()):
            break
        section = section[key]
    section[key] = value
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    text = problem_with(path)
    assert text is None or (text.startswith(str(path)) and len(text.splitlines()) == 1)
