"""What a copy or a repository of a published data set lacks is told in one line, with what to do."""

import pytest
from hub_folders import gsm, settings, write_copy

from entropy_mechanism.data.download import SourceError
from entropy_mechanism.data.examples import EXAMPLES
from entropy_mechanism.data.published import read_published
from entropy_mechanism.data.sources import SOURCES

pytestmark = pytest.mark.usefixtures("datasets_cache")


def failure(name, copy, **changes):
    with pytest.raises(SourceError) as caught:
        read_published(settings(name, copy, **changes))
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert len(message.splitlines()) == 1
    return message


def test_a_renamed_column_is_shown_with_what_is_missing_and_new(tmp_path):
    rows = [{"query": row["question"], "answer": row["answer"]} for row in EXAMPLES["gsm8k-train"]]
    message = failure("gsm8k-train", write_copy(tmp_path / "copy", "gsm8k-train", rows), rows=1)
    assert "columns have changed: missing question; new query; pin a revision" in message


def test_another_number_of_rows_is_refused_until_it_is_accepted(tmp_path):
    copy = write_copy(tmp_path / "copy", "gsm8k-train", EXAMPLES["gsm8k-train"])
    assert "has 1 rows, expected 7473: " in failure("gsm8k-train", copy)
    assert "accept the change with rows: 1" in failure("gsm8k-train", copy)
    assert len(read_published(settings("gsm8k-train", copy, rows=1))[0]) == 1


def test_another_number_of_indices_is_refused(tmp_path, monkeypatch):
    rows = EXAMPLES["dapo-math-raw"]
    copy = write_copy(tmp_path / "copy", "dapo-math-raw", rows)
    guarded = SOURCES | {"dapo-math-raw": _with(SOURCES["dapo-math-raw"], rows=(3,))}
    monkeypatch.setattr("entropy_mechanism.data.download.SOURCES", guarded)
    assert "has 2 different rows, expected 17917" in failure("dapo-math-raw", copy)


def _with(source, **changes):
    from dataclasses import replace

    return replace(source, **changes)


def test_a_missing_split_is_shown_with_those_there_are(tmp_path):
    copy = write_copy(tmp_path / "copy", "gsm8k-test", EXAMPLES["gsm8k-test"], split="validation")
    message = failure("gsm8k-test", copy, rows=1)
    assert "no configuration main, split test: " in message
    assert "['validation']" in message
    assert "copy a revision of openai/gsm8k that has it" in message


def test_a_missing_configuration_is_shown_with_those_there_are(tmp_path):
    copy = write_copy(tmp_path / "copy", "gsm8k-test", EXAMPLES["gsm8k-test"], config="socratic")
    message = failure("gsm8k-test", copy, rows=1)
    assert "no configuration main, split test: " in message
    assert "['socratic']" in message


@pytest.mark.parametrize("name", ["gsm8k-train", "eurus2-math", "omni-math-rule"])
def test_without_network_and_copy_it_says_how_to_get_one(name):
    message = failure(name, None)
    for way in ("cannot be reached", "HF_HUB_OFFLINE", "HF_ENDPOINT", "folder"):
        assert way in message
    assert ("and the same HF_HOME" in message) != SOURCES[name].streamed


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert f"there is no folder {tmp_path / 'absent'}" in failure("amc", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    message = failure("amc", tmp_path / "empty")
    assert f"{tmp_path / 'empty'} holds no data" in message
    assert "hf download --repo-type dataset AI-MO/aimo-validation-amc" in message
    assert "the folder must hold the file omni_math_rule.jsonl" in failure("omni-math-rule", tmp_path)


def test_a_file_with_another_digest_is_refused_until_its_rows_are_accepted(tmp_path):
    copy = write_copy(tmp_path / "copy", "omni-math-rule", EXAMPLES["omni-math-rule"])
    message = failure("omni-math-rule", copy)
    assert "its SHA-256 is" in message
    assert SOURCES["omni-math-rule"].sha256 in message
    assert len(read_published(settings("omni-math-rule", copy, rows=2))[0]) == 2


def test_a_line_that_is_not_json_is_named(tmp_path):
    copy = write_copy(tmp_path / "copy", "omni-math-rule", EXAMPLES["omni-math-rule"])
    path = copy / "omni_math_rule.jsonl"
    path.write_text(path.read_text() + '{"problem": "cut\n')
    assert f"{path}:3 is not JSON" in failure("omni-math-rule", copy, rows=2)


def test_nothing_usable_is_an_error_that_gives_the_reasons(tmp_path):
    copy = write_copy(
        tmp_path / "copy", "gsm8k-train", [gsm("How many?", None), gsm("", "#### 1"), gsm("How?", None)]
    )
    message = failure("gsm8k-train", copy, rows=3)
    assert message == ("gsm8k-train: no row could be used: 2 no #### in the solution; 1 no problem text")


def test_a_damaged_copy_is_not_to_be_read_again(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n{"problem": \n')
    message = failure("math500", tmp_path, rows=2)
    assert "broke off" in message
    assert message.endswith("the copy is damaged, make it again")


def test_a_copy_without_its_card_says_what_it_lacks(tmp_path):
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "test.jsonl").write_text('{"question": "1+1", "answer": "#### 2"}\n')
    assert "whole, with the README.md that names configurations and splits" in failure(
        "gsm8k-test", tmp_path, rows=1
    )


def test_a_relative_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"there is no folder {tmp_path / 'absent'}" in failure("amc", "absent")
