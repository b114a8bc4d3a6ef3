"""Prompt styles and data sets -> the examples in docs/data.md."""

import json
from typing import Any

from entropy_mechanism.data.examples import EXAMPLES
from entropy_mechanism.data.prompts import STYLES, chat
from entropy_mechanism.data.sources import SOURCES, Fields
from entropy_mechanism.models.tiny import build_tokenizer, prompt_text

PROBLEM = "What is $11^2 + 21$?"


def print_prompts() -> None:
    """Print the section of docs/data.md that shows prompts."""
    print(text(), end="")


def text() -> str:
    """A block per style, all with one problem, and a block per data set with its first row."""
    tokenizer = build_tokenizer()

    def render(style: Any, problem: str) -> str:
        return prompt_text(tokenizer, chat(style, problem))

    parts = ["### Styles\n"]
    parts += [f"`{style}`\n\n````text\n{render(style, PROBLEM)}````\n" for style in STYLES]
    parts.append("### Data sets\n")
    for name in EXAMPLES:
        fields = first(name)
        style = "code" if fields.tests else "paper-train"
        gold = f"tests `{fields.tests}`" if fields.tests else f"answer `{fields.answer}`"
        parts.append(f"`{name}` in style `{style}`; {gold}\n\n````text\n{render(style, fields.problem)}````\n")
    return "\n".join(parts)


def first(name: str) -> Fields:
    """What the mapping makes of the first example row that belongs to a data set."""
    source = SOURCES[name]
    # Through JSON, as a row comes from a file: nothing in it but plain values.
    rows = json.loads(json.dumps(EXAMPLES[name]))
    return source.read(next(row for row in rows if source.wanted is None or source.wanted(row)))
