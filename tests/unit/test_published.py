"""Published data sets: every source's layout through the real loader, repairs, drops, pins and commits."""

import json
import os
import subprocess
import sys
from typing import get_args

import datasets
import pytest
from hub_folders import gsm, problems, read, settings, write_copy
from local_hub import COMMIT, local_hub

from entropy_mechanism.data.download import SourceError, open_source
from entropy_mechanism.data.examples import EXAMPLES
from entropy_mechanism.data.normalise import repair
from entropy_mechanism.data.problems import from_frame, to_frame
from entropy_mechanism.data.published import read_published
from entropy_mechanism.data.sources import SOURCES
from entropy_mechanism.hub import SourceName

pytestmark = pytest.mark.usefixtures("datasets_cache")


CODE = {name for name in SOURCES if "code" in name}


def test_the_settings_know_exactly_the_sources_there_are():
    assert set(get_args(SourceName)) == set(SOURCES) == set(EXAMPLES)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_loads_in_its_publishers_layout(name, tmp_path):
    found, facts = read(name, tmp_path / "copy", EXAMPLES[name])
    assert found
    assert facts["read"] == len(EXAMPLES[name])
    assert facts["kept"] == len(found)
    assert facts["licence"]
    assert from_frame(to_frame(found)) == found
    for problem in found:
        row = int(problem.id.removeprefix(f"{name}:"))
        assert 0 <= row < facts["read"]
        assert bool(problem.tests) == (name in CODE) != bool(problem.answer)
        assert "Present the" not in problem.problem
        assert "Remember" not in problem.problem


def answers(name, folder, **changes):
    return [problem.answer for problem in problems(name, folder, EXAMPLES[name], **changes)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dapo-math", ["9", "90"]),
        ("eurus2-math", ["32", "\\dfrac{1}{2}"]),
        ("gsm8k-train", ["1200"]),
        ("math-train", ["\\frac{3}{4}"]),
        ("math500", ["\\sqrt{2}"]),
        ("amc", ["142"]),
        ("amc23", ["27"]),
        ("omni-math-rule", ["299", "\\frac{1}{8}"]),
        ("olympiadbench", ["2, 3, 5", "7"]),
        ("minerva", ["10"]),
    ],
)
def test_answers_come_out_as_they_stand_in_a_box(name, expected, tmp_path):
    assert answers(name, tmp_path / "copy") == expected


@pytest.mark.parametrize(("wire", "expected"), [("142.0", "142"), (27.0, "27"), ("1,234", "1234"), ("7", "7")])
def test_contest_answers_become_whole_numbers(wire, expected, tmp_path):
    row = EXAMPLES["amc"][0] | {"answer": wire}
    assert problems("amc", tmp_path / "copy", [row])[0].answer == expected


def test_minerva_gold_is_taken_from_the_box_where_there_is_no_answer_column(tmp_path):
    row = {
        "problem": "How far?",
        "solution": "First $\\boxed{3}$, so $\\boxed{4.5 \\times 10^{3}}$ m.",
        "type": "x",
    }
    assert problems("minerva", tmp_path / "copy", [row])[0].answer == "4.5 \\times 10^{3}"


def test_only_the_data_sources_asked_for_are_kept(tmp_path):
    chosen = {"data_sources": ["numina_olympiads"]}
    kept, facts = read("eurus2-math", tmp_path / "a", EXAMPLES["eurus2-math"], **chosen)
    assert [problem.problem for problem in kept] == ["Solve $2x = 1$."]
    assert facts["dropped"]["of another data_source"]["rows"] == 1
    with pytest.raises(SourceError, match="no problem is of numina_nowhere; there are numina_cn_k12, numina_oly"):
        read("eurus2-math", tmp_path / "b", EXAMPLES["eurus2-math"], data_sources=["numina_nowhere"])
    with pytest.raises(ValueError, match="found with source 'amc'; allowed: only with the sources eurus2"):
        settings("amc", tmp_path / "a", data_sources=["x"])


def test_programs_get_the_tests_of_their_kind(tmp_path):
    stdio, call = (json.loads(p.tests) for p in problems("eurus2-code", tmp_path / "a", EXAMPLES["eurus2-code"]))
    assert stdio == {"kind": "stdio", "inputs": ["2\n3 4\n", "1\n5\n"], "outputs": ["7\n", "5\n"]}
    assert call == {"kind": "stdio", "fn_name": "double", "inputs": [[3], [-1]], "outputs": [6, -2]}
    kodcode = problems("kodcode", tmp_path / "b", EXAMPLES["kodcode"])[0]
    assert json.loads(kodcode.tests) == {"kind": "pytest", "code": EXAMPLES["kodcode"][0]["test"]}
    assert "def square_1(n):" in kodcode.problem
    acecode = problems("acecode", tmp_path / "c", EXAMPLES["acecode"])[0]
    tests = ["assert triple(2) == 6", "assert triple(0) == 0"]
    code = "".join(f"\n\ndef test_{n}():\n    {test}\n" for n, test in enumerate(tests))
    assert json.loads(acecode.tests) == {"kind": "pytest", "code": f"from solution import *\n{code}"}


def test_kodcodes_two_parts_share_nothing_and_leave_nothing_out(tmp_path):
    rows = EXAMPLES["kodcode"]
    train = problems("kodcode", tmp_path / "a", rows)
    held_out = problems("kodcode-heldout", tmp_path / "b", rows)
    texts = [{problem.problem for problem in part} for part in (train, held_out)]
    assert not texts[0] & texts[1]
    assert len(texts[0]) + len(texts[1]) == len(rows)


def test_what_cannot_be_used_is_left_out_with_its_reason_and_named(tmp_path):
    rows = [
        gsm("How many?", "3"),
        gsm("No answer?", None),
        gsm("Blank?", " "),
        gsm("   ", "4"),
        gsm("Cut?", "\\frac{5055}{2^{15}"),
    ]
    found, facts = read("gsm8k-train", tmp_path / "copy", rows)
    assert [problem.id for problem in found] == ["gsm8k-train:0"]
    assert facts["dropped"] == {
        "no #### in the solution": {"rows": 1, "examples": ["gsm8k-train:1"]},
        "no answer": {"rows": 1, "examples": ["gsm8k-train:2"]},
        "no problem text": {"rows": 1, "examples": ["gsm8k-train:3"]},
        "answer cut off: unbalanced braces": {"rows": 1, "examples": ["gsm8k-train:4"]},
    }


def test_a_row_in_another_layout_is_left_out(tmp_path):
    rows = EXAMPLES["eurus2-math"][:2]
    odd = rows[0] | {"prompt": [{"role": "user", "content": None}, {"role": None, "content": "x"}]}
    empty = rows[0] | {"reward_model": None, "prompt": [{"role": "user", "content": "How many?"}]}
    found, facts = read("eurus2-math", tmp_path / "copy", [*rows, odd, empty])
    assert [problem.id for problem in found] == ["eurus2-math:0", "eurus2-math:1"]
    assert facts["dropped"] == {
        "no problem text": {"rows": 1, "examples": ["eurus2-math:2"]},
        "no answer": {"rows": 1, "examples": ["eurus2-math:3"]},
    }
    tests = json.dumps({"inputs": 3, "outputs": [1]})
    broken = [row | {"reward_model": {"ground_truth": tests, "style": "rule"}} for row in EXAMPLES["eurus2-code"]]
    rows = EXAMPLES["eurus2-code"][-1:] + broken[-1:]
    assert read("eurus2-code", tmp_path / "code", rows)[1]["dropped"] == {
        "tests are not in the published form": {"rows": 1, "examples": ["eurus2-code:1"]}
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x0crac{7}{12}", "\\frac{7}{12}"),
        ("a^{2}<a<\x0crac{1}{a}", "a^{2}<a<\\frac{1}{a}"),
        ("\x08inom{4}{2}", "\\binom{4}{2}"),
        ("3 \times 4", "3 \\times 4"),
        ("\right", "\\right"),
        ("\x0cind\tx", "\x0cind\tx"),
        ("a\nu", "a\nu"),
    ],
)
def test_commands_get_their_backslash_back(text, expected):
    assert repair(text, white=True) == expected


def test_tabs_in_a_problem_stay():
    assert repair("\tan apple\n\to eat, \x0crac{1}{2}") == "\tan apple\n\to eat, \\frac{1}{2}"


def test_null_and_nan_answers_are_left_out(tmp_path):
    rows = [{"id": i, "problem": f"{i}?", "answer": answer} for i, answer in enumerate([27.0, None, float("nan")])]
    found, facts = read("amc", tmp_path / "copy", rows)
    assert [problem.answer for problem in found] == ["27"]
    assert facts["dropped"]["no answer"]["rows"] == 2


def test_answers_that_were_cut_off_stay_when_asked_for(tmp_path):
    rows = [gsm("Cut?", "\\frac{1}{2^{15}")]
    found, facts = read("gsm8k-train", tmp_path / "copy", rows, keep_truncated=True)
    assert [problem.answer for problem in found] == ["\\frac{1}{2^{15}"]
    assert facts["noted"]["kept: answer cut off: unbalanced braces"]["rows"] == 1


def test_repetitions_and_conflicts_are_left_out_and_other_signs_are_other_problems(tmp_path):
    rows = [
        gsm("Find $x+1$.", "3"),
        gsm("find \\(x + 1\\)", "3"),  # the same, set in another way
        gsm("Find $x-1$.", "1"),  # another sign
        gsm("How old is Bo?", "7"),
        gsm("How old is Bo ?", "8"),  # one of the two is wrong
    ]
    found, facts = read("gsm8k-train", tmp_path / "copy", rows)
    assert [problem.id for problem in found] == ["gsm8k-train:0", "gsm8k-train:2"]
    assert facts["dropped"] == {
        "conflicting answers": {"rows": 2, "examples": ["gsm8k-train:3", "gsm8k-train:4"]},
        "repeated": {"rows": 1, "examples": ["gsm8k-train:1"]},
    }
    assert facts["noted"]["kept: differs from another in signs and operators alone"]["rows"] == 1


def test_a_test_set_stays_as_published(tmp_path):
    rows = [gsm("How many?", "3"), gsm("How many?", "3"), gsm("How many?", "4")]
    assert len(problems("gsm8k-test", tmp_path / "copy", rows)) == 3


def test_the_papers_rows_are_one_for_each_index_with_repetitions_and_conflicts(tmp_path):
    first, second, copy = EXAMPLES["dapo-math-raw"]
    same_text = first | {"extra_info": {"index": "other"}}
    conflict = same_text | {
        "extra_info": {"index": "third"},
        "reward_model": {"ground_truth": "8", "style": "rule"},
    }
    rows = [first, second, copy, same_text, conflict]
    found, facts = read("dapo-math-raw", tmp_path / "copy", rows, paper_rows=True)
    assert [problem.id for problem in found] == [f"dapo-math-raw:{i}" for i in (0, 1, 3, 4)]
    assert facts["dropped"] == {"copy of a row": {"rows": 1, "examples": ["dapo-math-raw:2"]}}
    kept = problems("dapo-math-raw", tmp_path / "copy", rows)
    assert [problem.id for problem in kept] == ["dapo-math-raw:1"]  # the rest contradicts itself


def test_a_subset_is_random_repeatable_and_in_order(tmp_path):
    rows = [gsm(f"What is {i} + {i}?", str(2 * i)) for i in range(50)]
    copy = write_copy(tmp_path / "copy", "gsm8k-train", rows)

    def chosen(seed):
        found, _ = read_published(settings("gsm8k-train", copy, rows=50, limit=10, seed=seed))
        return [int(problem.id.rpartition(":")[2]) for problem in found]

    assert chosen(1) == chosen(1) == sorted(chosen(1))
    assert len(set(chosen(1))) == 10
    assert chosen(1) != chosen(2)
    assert chosen(1) != list(range(10))
    with pytest.raises(SourceError, match="limit: found 60, but only 50 problems"):
        read_published(settings("gsm8k-train", copy, rows=50, limit=60))


def test_a_local_copy_is_read_as_it_is_now(tmp_path):
    for answer in ("1", "2"):
        assert problems("gsm8k-train", tmp_path / "copy", [gsm("How many?", answer)])[0].answer == answer
    for folder in ("a/copy", "b/copy"):
        row = gsm(f"What is in {folder}?", "1") | {f"column of {folder}": 1}
        assert problems("gsm8k-train", tmp_path / folder, [row])[0].problem == row["question"]
        datasets.load_dataset(str(tmp_path / folder), "main", split="train")  # the user's own look fills the cache


def test_a_pinned_file_is_its_own_commit(tmp_path, monkeypatch):
    copy = write_copy(tmp_path / "copy", "omni-math-rule", EXAMPLES["omni-math-rule"])
    asked = []

    class Manager:
        def download(self, address):
            asked.append(address)
            return str(copy / "omni_math_rule.jsonl")

    monkeypatch.setattr(datasets, "DownloadManager", Manager)
    download = open_source(settings("omni-math-rule", rows=2))
    revision = SOURCES["omni-math-rule"].revision
    assert (download.revision, download.commit) == (revision, revision)
    assert asked == [f"https://raw.githubusercontent.com/KbsdJames/omni-math-rule/{revision}/omni_math_rule.jsonl"]


# --- through a hub on this machine --------------------------------------------------------------------------

READ = """
import json, sys
from hub_folders import settings
from entropy_mechanism.data.published import read_published
for changes in json.loads(sys.argv[1]):
    try:
        found, facts = read_published(settings(**changes))
        print(json.dumps([len(found), facts["revision"], facts["commit"]]))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture
def over_network(tmp_path):
    """Read data sets in a process of its own, whose hub is on this machine; the environment is read on import."""
    for name in ("gsm8k-train", "dapo-math-raw"):
        write_copy(tmp_path / "hub" / SOURCES[name].place, name, EXAMPLES[name])

    def read(*wanted, **environment):
        with local_hub(tmp_path / "hub") as address:
            variables = os.environ | {
                "HF_HOME": str(tmp_path / "home"),
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": "0",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            }
            done = subprocess.run(
                [sys.executable, "-c", READ, json.dumps(wanted)],
                env=variables | environment,
                capture_output=True,
                text=True,
                check=True,
            )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return read


def test_the_commit_is_recorded_a_pin_is_kept_and_the_cache_serves_without_a_network(over_network):
    kept = {"name": "gsm8k-train", "rows": 1}
    streamed = {"name": "dapo-math-raw", "rows": 3}
    pinned, unknown = kept | {"revision": COMMIT}, kept | {"revision": "b" * 40}
    absent = {"name": "amc"}
    online = over_network(kept, streamed, pinned, unknown, absent)
    assert online[:3] == [[1, "main", COMMIT], [2, "main", COMMIT], [1, COMMIT, COMMIT]]
    assert f"Revision '{'b' * 40}' doesn't exist" in online[3]
    assert "check the revision" in online[3]
    assert "AI-MO/aimo-validation-amc could not be opened" in online[4]
    offline = over_network(kept, streamed, pinned, unknown, HF_HUB_OFFLINE="1")
    assert offline[0] == [1, "main", COMMIT]
    assert "dapo-math-raw: BytedTsinghua-SIA/DAPO-Math-17k is never kept in the cache" in offline[1]
    assert offline[2] == [1, COMMIT, COMMIT]
    assert f"revision {'b' * 40} of openai/gsm8k is asked for" in offline[3]
    assert f"in the cache is commit {COMMIT}" in offline[3]
