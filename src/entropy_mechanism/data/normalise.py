r"""Text of published problems and answers: repairs, canonical numbers, keys under which two texts are the same.

Nothing here guesses: what cannot be used raises `Unusable` with the reason that the statistics file reports.
"""

import math
import re
from typing import Any


class Unusable(Exception):
    """A row that cannot become a problem; the message is the reason, the same for all rows of a kind."""


_ESCAPES = {"a": "\x07", "b": "\x08", "f": "\x0c", "v": "\x0b", "t": "\t", "r": "\r"}
_COMMANDS = (
    "alpha angle approx arc arccos arcsin arctan ast bar because begin beta big bigcap bigcup binom bmod bot "
    "boxed fbox flat floor forall frac varepsilon varphi vartheta vdots vec vee vert "
    "tan tau text textbf textrm tfrac theta tilde times to triangle rangle rceil rfloor rho right"
)
_LOST = {_ESCAPES[name[0]] + name[1:]: name for name in _COMMANDS.split()}
_ALL_LOST, _STRANGE_LOST = (
    re.compile("(" + "|".join(text for text in _LOST if not text.startswith(white)) + ")(?![A-Za-z])")
    for white in ((), ("\t", "\r"))
)


def repair(text: str, white: bool = False) -> str:
    r"""Give back the backslash of LaTeX commands that was lost when `\f`, `\b` … were read as control characters.

    `"\x0crac{7}{12}"` becomes `\frac{7}{12}`. With `white` also behind tabs and carriage returns, which in longer
    texts are white space more often. A line feed is never touched.
    """
    return (_ALL_LOST if white else _STRANGE_LOST).sub(lambda match: f"\\{_LOST[match[1]]}", text)


def balanced(text: str) -> bool:
    r"""Whether the braces balance; `\{` and `\}` only print."""
    depth = 0
    for piece in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(piece[0], 0)
        if depth < 0:
            return False
    return depth == 0


def plain_number(text: str) -> str:
    """A whole number without its decimals and thousands commas, `142.0` as `142`; any other text unchanged."""
    bare = re.fullmatch(r"([+-]?\d{1,3}(?:,\d{3})+|[+-]?\d+)(?:\.0*)?", text, re.ASCII)
    return bare[1].replace(",", "") if bare else text


def answer_text(value: Any) -> str:
    r"""An answer as published (text or number) as it would stand inside a box.

    Whole floats lose their decimals, `$…$` around the whole is taken off, lost backslashes come back. Raises
    Unusable for null, NaN and blank answers.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise Unusable("no answer")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = repair(str(value), white=True).strip()
    inside = re.fullmatch(r"\$([^$]*)\$|\$\$([^$]*)\$\$", text)
    if inside:
        text = (inside[1] if inside[1] is not None else inside[2]).strip()
    if not text:
        raise Unusable("no answer")
    return text


def problem_text(value: Any) -> str:
    """A problem's text, repaired and without white space around it. Raises Unusable when there is none."""
    if not isinstance(value, str) or not value.strip():
        raise Unusable("no problem text")
    return repair(value).strip()


def loose_key(text: str) -> str:
    r"""Lower case without `\W`: equal for texts that differ in nothing but punctuation, also in signs."""
    return re.sub(r"\W", "", text.lower())


_LAYOUT = re.compile(
    r"\\[()\[\]]|\\(?:left|right|displaystyle|,|;|!|:|\s)|[\s$\\{}~]|(?<!\d)[.,]|[.,](?!\d)|[;:?!'\"’“”]"
)


def strict_key(text: str) -> str:
    """Lower case without layout and punctuation; signs, operators and decimal points stay.

    Equal for texts that say the same thing: `$x+1$.` and `\\(x + 1\\)`, but not `x-1`.
    """
    return _LAYOUT.sub("", text.lower().replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))


def answer_key(text: str) -> str:
    """An answer without white space, dollar signs and layout commands."""
    text = text.lower().replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return re.sub(r"[\s$]|\\(?:left|right)(?![a-z])|\\[,;:!\s]", "", text)


_WORD = re.compile(r"[㐀-鿿]|[^\W_㐀-鿿]+")
_SAME = {"dfrac": "frac", "tfrac": "frac"}
_MUTE = {"left", "right", "displaystyle", "mathrm", "text", "quad", "qquad"}


def words(text: str) -> list[str]:
    """The words of a text in lower case, numbers and LaTeX commands among them, each Chinese character a word.

    Commands that only lay out are left out, so that the same problem typeset in two ways has the same words.
    """
    found = (_SAME.get(word, word) for word in _WORD.findall(text.lower()))
    return [word for word in found if word not in _MUTE]
