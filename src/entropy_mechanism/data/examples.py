r"""A few rows of every published data set in the publisher's layout, written for this project.

They show in docs/data.md what becomes of a row, and stand in for the real files in tests: nothing has to be
downloaded, and no published problem is copied.
"""

import json
from typing import Any

Rows = list[dict[str, Any]]


def _verl(text: str, answer: str, index: Any, ability: str = "math", source: str = "math_dapo") -> dict[str, Any]:
    """A row in the layout of verl's training files."""
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": text}],
        "ability": ability,
        "reward_model": {"ground_truth": answer, "style": "rule"},
        "extra_info": {"index": index},
    }


def _dapo_raw(text: str, answer: str, index: str) -> dict[str, Any]:
    wrapped = (
        "Solve the following math problem step by step. The last line of your response should be of the form "
        f"Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n{text}\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    )
    return _verl(wrapped, answer, index)


def _dapo(text: str, answer: str, index: str) -> dict[str, Any]:
    raw = _dapo_raw(text, answer, index)
    return raw | {"prompt": text, "solution": answer, "source_prompt": raw["prompt"], "ability": "MATH"}


def _eurus(text: str, gold: str, ability: str, source: str, index: int) -> dict[str, Any]:
    request = (
        "\n\nPresent the answer in LaTex format: \\boxed{Your answer}"
        if ability == "math"
        else "\n\nWrite Python code to solve the problem. Present the code in \n```python\nYour code\n```\nat "
        "the end."
    )
    row = _verl(text + request, gold, index, ability, source)
    system = {"role": "system", "content": "Think in named steps."}
    return row | {"prompt": [system, *row["prompt"]], "extra_info": {"index": index, "split": "train"}}


_STDIO = json.dumps({"inputs": ["2\n3 4\n", "1\n5\n"], "outputs": ["7\n", "5\n"]})
_CALL = json.dumps({"fn_name": "double", "inputs": ["3", "-1"], "outputs": ["6", "-2"]})

_EURUS_ROWS = [
    _eurus(
        "A box holds $3$ red and $5$ blue pens. How many pens are in $4$ boxes?", "32", "math", "numina_cn_k12", 0
    ),
    _eurus("Solve $2x = 1$.", "\\dfrac{1}{2}", "math", "numina_olympiads", 1),
    _eurus("Read n and then n integers; print their sum.", _STDIO, "code", "taco", 2),
    _eurus("Write a function double(n) that returns twice n.", _CALL, "code", "apps", 3),
]


def _kodcode(question: str, name: str, test: str, style: str, index: int) -> dict[str, Any]:
    return {
        "style": style,
        "subset": "Prefill",
        "question_id": f"Example_{index}_{style[0].upper()}",
        "question": question,
        "solution": f"def {name}(n):\n    return n * n\n",
        "test": test,
        "test_info": [
            {
                "docstring": "",
                "function_declaration": f"def {name}(n):",
                "function_name": name,
                "parameter_list": "(n)",
            }
        ],
    }


_KODCODE_ROWS = [
    _kodcode(
        f"Write a function that returns the {n}th multiple of the square of n.",
        f"square_{n}",
        f"from solution import square_{n}\n\n\ndef test_square():\n    assert square_{n}(3) == {9 * n}\n",
        "instruct",
        n,
    )
    for n in range(1, 31)
]


def _olympiad(question: str, final: list[str], multiple: bool, index: int) -> dict[str, Any]:
    return {
        "id": index,
        "question": question,
        "solution": ["Count both cases."],
        "final_answer": final,
        "context": None,
        "image_1": None,
        "image_2": None,
        "image_3": None,
        "image_4": None,
        "image_5": None,
        "modality": "Text-only",
        "difficulty": "Competition",
        "is_multiple_answer": multiple,
        "unit": None,
        "answer_type": "Numerical",
        "error": None,
        "question_type": "Open-ended",
        "subfield": "Number Theory",
        "subject": "Math",
        "language": "English",
    }


def _omni(problem: str, answer: str, difficulty: float) -> dict[str, Any]:
    return {
        "domain": ["Mathematics -> Algebra"],
        "difficulty": difficulty,
        "problem": problem,
        "solution": "By direct computation.",
        "answer": answer,
        "source": "example",
    }


_OMNI_ROWS = [
    _omni("Find the smallest positive integer whose digits sum to $20$.", "299", 4.0),
    _omni(
        "A fair coin is tossed until two heads in a row appear. What is the chance of $3$ tosses?",
        "\x0crac{1}{8}",
        5.5,
    ),
]

EXAMPLES: dict[str, Rows] = {
    "dapo-math": [
        _dapo("Let $n$ be the number of divisors of $36$. Find $n$.", "9", "7d1c"),
        _dapo("一个三角形的三个内角之比为 $1:2:3$，求最大内角的度数。", "90", "a0e4"),
    ],
    "dapo-math-raw": [
        _dapo_raw("Let $n$ be the number of divisors of $36$. Find $n$.", "9", "7d1c"),
        _dapo_raw("How many edges does a cube have?", "12", "33b9"),
        _dapo_raw("Let $n$ be the number of divisors of $36$. Find $n$.", "9", "7d1c"),
    ],
    "eurus2-math": _EURUS_ROWS,
    "eurus2-math-heldout": _EURUS_ROWS,
    "eurus2-code": _EURUS_ROWS,
    "eurus2-code-heldout": _EURUS_ROWS,
    "acecode": [
        {
            "id": "oss_0",
            "source": "oss",
            "question": "Write a function triple(n) that returns three times n.",
            "test_cases": ["assert triple(2) == 6", "assert triple(0) == 0"],
        }
    ],
    "kodcode": _KODCODE_ROWS,
    "kodcode-heldout": _KODCODE_ROWS,
    "gsm8k-train": [
        {
            "question": "Mia has 3 jars of 400 beans. How many beans?",
            "answer": "3*400=<<3*400=1200>>1200\n#### 1,200",
        }
    ],
    "gsm8k-test": [
        {"question": "Tom walks 2 km a day. How far in a week?", "answer": "7*2=<<7*2=14>>14 km.\n#### 14"}
    ],
    "math-train": [
        {
            "problem": "Simplify $\\frac{6}{8}$.",
            "level": "Level 1",
            "solution": "Divide by $2$: \\boxed{\\frac{3}{4}}.",
            "type": "Prealgebra",
        }
    ],
    "math500": [
        {
            "problem": "What is the distance between $(0,0)$ and $(1,1)$?",
            "solution": "It is $\\boxed{\\sqrt{2}}$.",
            "answer": "\\sqrt{2}",
            "subject": "Geometry",
            "level": 2,
            "unique_id": "test/geometry/example.json",
        }
    ],
    "aime24": [
        {
            "id": 60,
            "problem": "Find the remainder when $2^{10}$ is divided by $1000$.",
            "solution": "$1024 - 1000 = \\boxed{024}$",
            "answer": "024",
            "url": "https://example.org/1",
            "year": "2024",
        }
    ],
    "aime25": [{"problem": "Find the sum of the primes below $20$.", "answer": "77", "id": "0"}],
    "amc": [{"id": 0, "problem": "What is $11^2 + 21$?", "answer": 142.0, "url": "https://example.org/2"}],
    "amc23": [{"id": 0, "question": "What is $3^3$?", "answer": 27.0, "url": "https://example.org/3"}],
    "omni-math": _OMNI_ROWS,
    "omni-math-rule": _OMNI_ROWS,
    "olympiadbench": [
        _olympiad("Determine all primes $p$ with $p^2 < 30$.", ["$2$, $3$, $5$"], True, 1),
        _olympiad("What is the largest integer below $\\sqrt{50}$?", ["$7$"], False, 2),
    ],
    "minerva": [
        {"question": "A lens of focal length $10$ cm has what power in dioptres?", "answer": "10"},
    ],
}
"""Rows by source name."""
