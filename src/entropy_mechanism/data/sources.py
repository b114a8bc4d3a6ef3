"""The published data sets: where each is, what it must look like, and how a row becomes a problem.

An entry is a guard as much as an address: the columns that are needed and the number of rows are checked on every
download, so that a change by the publisher is noticed before anything is trained or measured.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from entropy_mechanism.data.normalise import Unusable, answer_text, loose_key, plain_number, problem_text
from entropy_mechanism.rewards.boxed import last_boxed

Row = Mapping[str, Any]
HELD_OUT = 0.05
"""Share of KodCode's problems in its held-out part."""


@dataclass(frozen=True)
class Fields:
    """What a row says: the parts of a `Problem` that do not depend on where it stands."""

    problem: str
    answer: str = ""
    tests: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """One published data set."""

    place: str
    """Repository on the Hugging Face hub, or the address of a JSON-lines file; `{revision}` is filled in."""
    split: str
    rows: tuple[int, ...]
    """Numbers of rows that are known to be right."""
    licence: str
    needs: tuple[str, ...]
    """Columns that the mapping reads; `a|b` where publishers of the same data call it one or the other."""
    read: Callable[[Row], Fields]
    """A row's fields; raises Unusable."""
    config: str | None = None
    revision: str = "main"
    sha256: str | None = None
    """Digest of the file, where the source is one."""
    also: tuple[str, ...] = ()
    """Other columns there are, for a message about what changed."""
    wanted: Callable[[Row], bool] | None = None
    """Which rows belong to the set, where its file holds others too; all by default."""
    identity: Callable[[Row], str] | None = None
    """What a repeated copy of a row shares with it, where the publisher repeats rows."""
    identities: int | None = None
    """Number of different identities."""
    streamed: bool = False
    """Read row by row over the network, without keeping a copy: the file is far larger than what is kept of it."""
    benchmark: bool = False
    """Whether it is a test set, which stays as published: nothing is taken out as repeated."""

    @property
    def is_file(self) -> bool:
        """Whether the source is a single file and not a repository on the hub."""
        return "://" in self.place


def value(row: Row, names: str) -> Any:
    """The first of the columns `a|b` that the row has."""
    return next((row[name] for name in names.split("|") if name in row), None)


# --- what rows look like ------------------------------------------------------------------------------------

_INSTRUCTIONS = (
    r"\ASolve the following math problem step by step\. The last line of your response should be of the form "
    r"Answer: \$Answer \(without quotes\) where \$Answer is the answer to the problem\.\s*",
    r"\s*Remember to put your answer on its own line after \"Answer:\"\.\s*\Z",
    r"\s*Present the answer in LaTe[xX] format: \\boxed\{Your answer\}\.?\s*\Z",
    r"\s*Write Python code to solve the problem\. Present the code in\s*```python\s*Your code\s*```\s*at the end\."
    r"\s*\Z",
)


def _asked(prompt: Any) -> str:
    """The problem in a prompt, a text or a chat, without the instructions that the publisher put around it."""
    if not isinstance(prompt, str) and prompt is not None:
        prompt = next((turn["content"] for turn in prompt if turn["role"] == "user"), None)
    text = problem_text(prompt)
    for pattern in _INSTRUCTIONS:
        text = re.sub(pattern, "", text)
    return problem_text(text)


def _gold(row: Row) -> Any:
    return (row["reward_model"] or {}).get("ground_truth")


def _some(row: Row, *names: str) -> dict[str, Any]:
    """Metadata: those columns that hold something."""
    return {name: row[name] for name in names if row.get(name) not in (None, "", [])}


def _text_and_answer(text: str, answer: str, *metadata: str) -> Callable[[Row], Fields]:
    """The mapping of a set that has a column for each."""
    return lambda row: Fields(
        problem_text(value(row, text)), answer_text(value(row, answer)), metadata=_some(row, *metadata)
    )


def _whole_number(text: str, *metadata: str) -> Callable[[Row], Fields]:
    """The same for a contest whose answers are whole numbers, on the wire also `27.0` and `"142.0"`."""
    return lambda row: Fields(
        problem_text(value(row, text)),
        plain_number(answer_text(value(row, "answer|expected_answer"))),
        metadata=_some(row, *metadata),
    )


def _boxed_in_solution(row: Row) -> Fields:
    boxed = last_boxed(row["solution"] or "")
    if boxed is None:
        raise Unusable("no box in the solution")
    return Fields(problem_text(row["problem"]), answer_text(boxed), metadata=_some(row, "level", "type"))


def _minerva(row: Row) -> Fields:
    if "answer" in row:
        return _text_and_answer("question|problem", "answer")(row)
    return _boxed_in_solution(row)


def _gsm8k(row: Row) -> Fields:
    _, mark, answer = (row["answer"] or "").rpartition("####")
    if not mark:
        raise Unusable("no #### in the solution")
    return Fields(problem_text(row["question"]), plain_number(answer_text(answer)))


def _olympiad(row: Row) -> Fields:
    finals = row["final_answer"] or []
    text = re.sub(r"(?<!\\)\$", "", ", ".join(final for final in finals if final)) or None
    context = (row.get("context") or "").strip()
    return Fields(
        problem_text("\n\n".join(part for part in (context, row["question"] or "") if part)),
        answer_text(text),
        metadata=_some(row, "subfield", "answer_type", "unit", "error", "is_multiple_answer"),
    )


def _dapo(row: Row) -> Fields:
    answer = row["solution"] if row.get("solution") is not None else _gold(row)
    return Fields(_asked(row["prompt"]), answer_text(answer))


def _dapo_index(row: Row) -> str:
    return str(row["extra_info"]["index"])


def _eurus_math(row: Row) -> Fields:
    return Fields(_asked(row["prompt"]), answer_text(_gold(row)), metadata=_some(row, "data_source"))


def _eurus_code(row: Row) -> Fields:
    """Tests are JSON text: inputs and outputs, and for a function its name.

    For a function an input is text with one JSON value a line, an argument each, and an output is JSON text; in
    some rows they are values already.
    """
    try:
        gold = json.loads(_gold(row))
        inputs, outputs = list(gold["inputs"]), list(gold["outputs"])
        if not inputs or len(inputs) != len(outputs):
            raise Unusable("no test, or as many inputs as outputs are not there")
        if gold.get("fn_name"):
            inputs = [
                [json.loads(line) for line in given.splitlines()] if isinstance(given, str) else list(given)
                for given in inputs
            ]
            outputs = [json.loads(wanted) if isinstance(wanted, str) else wanted for wanted in outputs]
            # not kind `call`: some rows wrap each expected value in a list, which `stdio` with a name allows for
            tests = {"kind": "stdio", "fn_name": gold["fn_name"], "inputs": inputs, "outputs": outputs}
        else:
            tests = {"kind": "stdio", "inputs": _texts(inputs), "outputs": _texts(outputs)}
    except (TypeError, ValueError, KeyError):
        raise Unusable("tests are not in the published form") from None
    return Fields(_asked(row["prompt"]), tests=json.dumps(tests), metadata=_some(row, "data_source"))


def _texts(parts: list[Any]) -> list[str]:
    """Standard input or output, in some rows given line by line."""
    return ["\n".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts]


def _kodcode(row: Row) -> Fields:
    if row.get("style") == "online_judge":
        raise Unusable("online-judge style, which the paper leaves out")
    code = row["test"]
    if not isinstance(code, str) or "def test" not in code:
        raise Unusable("no test function")
    text = problem_text(row["question"])
    declarations = [entry["function_declaration"].strip() for entry in row.get("test_info") or ()]
    unnamed = [line for line in declarations if line and line.rstrip(":") not in text]
    if unnamed:  # without the name no program could be tested
        text += "\n\nIt must define:\n" + "\n".join(unnamed)
    return Fields(text, tests=json.dumps({"kind": "pytest", "code": code}), metadata=_some(row, "question_id"))


def _acecode(row: Row) -> Fields:
    """Tests are assertions, each a line of Python that calls the wanted function by its name."""
    asserts = [line.strip() for line in row["test_cases"] or () if isinstance(line, str)]
    if not asserts or not all(line.startswith("assert ") for line in asserts):
        raise Unusable("no assertions")
    body = "".join(f"\n\ndef test_{n}():\n    {line}\n" for n, line in enumerate(asserts))
    tests = {"kind": "pytest", "code": f"from solution import *\n{body}"}
    return Fields(problem_text(row["question"]), tests=json.dumps(tests), metadata=_some(row, "id", "source"))


def _is(ability: str) -> Callable[[Row], bool]:
    return lambda row: str(row["ability"]).lower() == ability


def _held_out(held_out: bool) -> Callable[[Row], bool]:
    """One of two parts of a set that has a single split, decided by the text alone."""

    def belongs(row: Row) -> bool:
        digest = hashlib.blake2b(loose_key(row["question"] or "").encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") / 2**64 < HELD_OUT) == held_out

    return belongs


# --- where they are -----------------------------------------------------------------------------------------

_VERL = ("data_source", "prompt", "ability", "reward_model", "extra_info")
_eurus = partial(
    Source,
    place="PRIME-RL/Eurus-2-RL-Data",
    licence="MIT",
    needs=("prompt", "ability", "reward_model"),
    also=_VERL,
)
_EURUS_ROWS = (480_537, 482_019)  # the publisher removed rows once
_kodcode_part = partial(
    Source,
    place="KodCode/KodCode-Light-RL-10K",
    split="train",
    rows=(10_000,),
    licence="not stated on its card; its parent KodCode-V1 is CC-BY-NC-4.0",
    needs=("question", "test"),
    also=("style", "subset", "question_id", "solution", "test_info"),
    read=_kodcode,
)
_CONTEST = "not stated on its card; the problems belong to the Mathematical Association of America"

SOURCES: dict[str, Source] = {
    "dapo-math": Source(
        "open-r1/DAPO-Math-17k-Processed", "train", (17_398,), "Apache-2.0", ("prompt", "solution|reward_model"),
        _dapo, config="all", also=(*_VERL, "source_prompt"),
    ),
    "dapo-math-raw": Source(
        "BytedTsinghua-SIA/DAPO-Math-17k", "train", (1_791_700,), "Apache-2.0",
        ("prompt", "reward_model", "extra_info"), _dapo, also=_VERL, identity=_dapo_index, identities=17_917,
        streamed=True,
    ),
    "eurus2-math": _eurus(
        split="train", rows=_EURUS_ROWS, read=_eurus_math, wanted=_is("math"), streamed=True
    ),
    "eurus2-math-heldout": _eurus(
        split="validation", rows=(2_048,), read=_eurus_math, wanted=_is("math"), benchmark=True
    ),
    "eurus2-code": _eurus(
        split="train", rows=_EURUS_ROWS, read=_eurus_code, wanted=_is("code"), streamed=True
    ),
    "eurus2-code-heldout": _eurus(
        split="validation", rows=(2_048,), read=_eurus_code, wanted=_is("code"), benchmark=True
    ),
    "kodcode": _kodcode_part(wanted=_held_out(False)),
    "kodcode-heldout": _kodcode_part(wanted=_held_out(True), benchmark=True),
    "acecode": Source(
        "TIGER-Lab/AceCode-87K", "train", (87_149,), "MIT", ("question", "test_cases"), _acecode,
        also=("id", "source", "inferences", "context_messages"), streamed=True,
    ),
    "gsm8k-train": Source(
        "openai/gsm8k", "train", (7_473,), "MIT", ("question", "answer"), _gsm8k, config="main"
    ),
    "gsm8k-test": Source(
        "openai/gsm8k", "test", (1_319,), "MIT", ("question", "answer"), _gsm8k, config="main", benchmark=True
    ),
    "math-train": Source(
        "DigitalLearningGmbH/MATH-lighteval", "train", (7_500,), "MIT", ("problem", "solution"),
        _boxed_in_solution, also=("level", "type"),
    ),
    "math500": Source(
        "HuggingFaceH4/MATH-500", "test", (500,), "MIT (of MATH)", ("problem", "answer"),
        _text_and_answer("problem", "answer", "subject", "level", "unique_id"),
        also=("solution", "subject", "level", "unique_id"), benchmark=True,
    ),
    "aime24": Source(
        "HuggingFaceH4/aime_2024", "train", (30,), _CONTEST, ("problem", "answer"),
        _whole_number("problem", "url"), also=("id", "solution", "url", "year"), benchmark=True,
    ),
    "aime25": Source(
        "math-ai/aime25", "test", (30,), _CONTEST, ("problem|question", "answer|expected_answer"),
        _whole_number("problem|question"), also=("id",), benchmark=True,
    ),
    "amc": Source(
        "AI-MO/aimo-validation-amc", "train", (83,), _CONTEST, ("problem|question", "answer"),
        _whole_number("problem|question", "url"), also=("id", "url"), benchmark=True,
    ),
    "amc23": Source(
        "math-ai/amc23", "test", (40,), _CONTEST, ("question|problem", "answer"),
        _whole_number("question|problem", "url"), also=("id", "url"), benchmark=True,
    ),
    "omni-math": Source(
        "KbsdJames/Omni-MATH", "test", (4_428,), "Apache-2.0", ("problem", "answer"),
        _text_and_answer("problem", "answer", "domain", "difficulty", "source"),
        also=("domain", "difficulty", "solution", "source"), benchmark=True,
    ),
    "omni-math-rule": Source(
        "https://raw.githubusercontent.com/KbsdJames/omni-math-rule/{revision}/omni_math_rule.jsonl", "test",
        (2_821,), "Apache-2.0 (of Omni-MATH)", ("problem", "answer"),
        _text_and_answer("problem", "answer", "domain", "difficulty", "source"),
        revision="4793415ef37d31c9cdb4e5b82dbe172f76f8cf08",
        sha256="d566d5b5a9865a04b507fdc4c0669cf0ff391748e13f190ecc925e78b584b172",
        also=("domain", "difficulty", "solution", "source"), benchmark=True,
    ),
    "olympiadbench": Source(
        # 674 rows on the hub, 675 in the copies that the paper's authors and others use
        "Hothan/OlympiadBench", "train", (674, 675), "Apache-2.0 (of the authors; its card is to be checked)",
        ("question", "final_answer"), _olympiad, config="OE_TO_maths_en_COMP",
        also=(
            "id", "solution", "context", "image_1", "image_2", "image_3", "image_4", "image_5", "modality",
            "difficulty", "is_multiple_answer", "unit", "answer_type", "error", "question_type", "subfield",
            "subject", "language",
        ), benchmark=True,
    ),
    "minerva": Source(
        "math-ai/minervamath", "test", (272,), "not stated on its card; from MIT OpenCourseWare",
        ("question|problem", "answer|solution"), _minerva, also=("solution", "type", "idx"), benchmark=True,
    ),
}  # fmt: skip
