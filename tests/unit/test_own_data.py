"""Problems in a file of one's own: read alike from every format, and kept apart from tests."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from entropy_mechanism.config import ConfigError, FileSet, load_experiment
from entropy_mechanism.data.own import read_own

SMOKE = yaml.safe_load((Path(__file__).parents[2] / "config/experiments/smoke.yaml").read_text())
ROWS = [
    {"problem": "1+1", "answer": 2, "level": "easy"},
    {"problem": "2+2", "answer": 4.0, "level": "easy"},
    {"problem": " ", "answer": "6", "level": "hard"},
    {"problem": "3+3", "answer": None, "level": "hard"},
    {"problem": r"\frac{1}{2}+1", "answer": r"$\frac{3}{2}$", "level": "hard"},
]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_problems_of_a_file_are_read_alike_from_every_format(tmp_path, suffix):
    frame, path = pd.DataFrame(ROWS, dtype="object"), tmp_path / f"mine.{suffix}"
    if suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.astype({"answer": "str"}).where(frame.notna(), None).to_parquet(path)
    problems, facts = read_own(FileSet(kind="file", path=str(path)), "mine")
    assert [(p.id, p.problem, p.answer, p.metadata) for p in problems] == [
        ("mine:0", "1+1", "2", {"level": "easy"}),
        ("mine:1", "2+2", "4" if suffix == "jsonl" else "4.0", {"level": "easy"}),
        ("mine:4", r"\frac{1}{2}+1", r"\frac{3}{2}", {"level": "hard"}),
    ]
    assert (facts["read"], facts["kept"]) == (5, 3)
    assert {reason: entry["examples"] for reason, entry in facts["dropped"].items()} == {
        "no problem text": ["mine:2"],
        "no answer": ["mine:3"],
    }


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (
            "a.jsonl",
            '{"problem": "1", "answer": "1"}\n{"question": "2"}\n',
            "row 2 has no column problem, answer; found question",
        ),
        ("a.jsonl", '{"problem": "1", "answer": "1"}\nno json\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", r"a.jsonl:1: found \[1\]; a line is one object"),
        ("a.jsonl", "", "none of its 0 rows has a problem and an answer"),
        ("a.parquet", "no table", "a.parquet cannot be read as .parquet"),
    ],
)
def test_a_file_that_holds_no_problems_is_named(tmp_path, name, content, text):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=text):
        read_own(FileSet(kind="file", path=str(tmp_path / name)), "mine")


def load(**sets):
    """The smoke experiment with other data sets."""
    Path("my.yaml").write_text(yaml.safe_dump(SMOKE | {"data": SMOKE["data"] | sets}))
    return load_experiment("my.yaml")


def test_a_column_cannot_be_problem_and_answer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.mine\.answer: found 'text', the problem's column"):
        load(mine={"kind": "file", "path": "mine.csv", "problem": "text", "answer": "text"})


def test_one_file_is_one_data_set_however_its_path_is_spelt():
    here = str(Path("a.csv").resolve())
    one, other, *same = (FileSet(kind="file", path=path) for path in ("a.csv", "b.csv", "./b/../a.csv", here))
    assert all(one.overlaps(spelling) for spelling in same)
    assert not one.overlaps(other)


def test_other_columns_can_be_named_and_other_formats_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("question,solution\n1+2,3\n")
    settings = FileSet(kind="file", path="mine.csv", problem="question", answer="solution")
    assert [(p.problem, p.answer) for p in read_own(settings, "mine")[0]] == [("1+2", "3")]
    with pytest.raises(
        ConfigError, match=r"data\.mine\.path: found 'mine\.xls'; allowed: a file that ends in \.jsonl"
    ):
        load(mine={"kind": "file", "path": "mine.xls"})


def test_a_file_is_not_trained_on_and_tested_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"'easy' may hold problems of 'train', which runs are trained on"):
        load(**{name: {"kind": "file", "path": "mine.csv"} for name in ("train", "easy")})
