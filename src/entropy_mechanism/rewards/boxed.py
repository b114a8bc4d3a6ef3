r"""Finding the final answer: the content of the last balanced `\boxed{…}` of a response."""

_OPENING = r"\boxed{"


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` whose braces balance, or None when there is none.

    A box that is never closed does not count. Escaped braces (`\{`, `\}`) are part of the content and do not
    open or close anything.
    """
    start = text.rfind(_OPENING)
    while start != -1:
        content = _balanced(text, start + len(_OPENING))
        if content is not None:
            return content.strip()
        start = text.rfind(_OPENING, 0, start)
    return None


def _balanced(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes an already opened one."""
    depth, index = 1, start
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 2
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start:index]
        index += 1
    return None
