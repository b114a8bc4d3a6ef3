r"""Finding the final answer: the content of the last balanced `\boxed{…}` of a response."""

import re

# A box also counts behind a doubled backslash; `\\{` is a line break and a brace, `\{` a brace that only prints.
_PIECE = re.compile(r"\\boxed\{|\\\\(?!boxed\{)|\\[{}]|[{}]")


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` whose braces balance, or None when there is none.

    The last is the one that opens last. A box that is never closed does not count. Escaped braces (`\{`, `\}`)
    are part of the content and do not open or close anything. One pass, however long and broken the text.
    """
    open_braces: list[int | None] = []  # where the content starts for a box, None for any other brace
    last: tuple[int, int] | None = None
    for piece in _PIECE.finditer(text):
        if piece[0] in ("\\boxed{", "{"):
            open_braces.append(piece.end() if piece[0] != "{" else None)
        elif piece[0] == "}" and open_braces:
            start = open_braces.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, piece.start())
    return None if last is None else text[slice(*last)].strip()
