"""Turns failed validation into one line that a person can act on."""

import difflib
import re
from collections.abc import Callable, Collection
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

NAME_PATTERN = r"^[a-z0-9]+([._@+-]?[a-z0-9]+)*$"
PROTOCOL_PATTERN = r"^(greedy|(avg|pass|maj)@[1-9][0-9]*)$"
REPOSITORY_PATTERN = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?$"
PROBLEMS_PATTERN = r"\.(jsonl|csv|parquet)$"
FILE_PATTERN = r"^[^:]+\.py$"
OWN_PATTERN = r"^own_[a-z0-9_]+$"
CODE_PATTERN = r"^[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*$"
_IN_WORDS = {
    NAME_PATTERN: "lower-case letters and digits, with single - _ . @ + between them",
    PROTOCOL_PATTERN: "greedy, avg@k, pass@k or maj@k, such as avg@8",
    PROBLEMS_PATTERN: "a file that ends in .jsonl, .csv or .parquet",
    FILE_PATTERN: "a Python file, such as my_figure.py",
    CODE_PATTERN: "a file and a function that it defines, such as my_objective.py:my_objective",
    REPOSITORY_PATTERN: "a repository on the hub, such as Qwen/Qwen2.5-7B; a local folder goes into `folder`",
}

_MEANT = {"gpu": "cuda"}
"""Other words for a value; by its letters, gpu would be taken for cpu."""
FILLED_IN: dict[str, Any] = {"readOnly": True}
"""JSON schema of a key that the project fills in: no key of an experiment file."""
MOST_FAILURES = 3
"""Failures spelt out in one message; one mistake often causes several."""


class ConfigError(Exception):
    """Configuration that cannot be used; the message is one line that names file, key and what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class KeyedError(ValueError):
    """A failed check that knows its key, counted from the section that is checked."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def shown(value: Any) -> str:
    """A value as a message quotes it: short, on one line, in the words of YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "keys and values"
        case list() | tuple():
            return "a list"
        case str() if len(value) > 60:
            return repr(f"{value[:60]}…")
    return repr(value)


def options(name: Any, known: Collection[str]) -> str:
    """'allowed: …' with a suggestion for a misspelt name."""
    if not known:
        return "there are none"
    meant = _MEANT.get(str(name))
    close = [meant] if meant in known else difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"allowed: {', '.join(known)}" + (f" (did you mean '{close[0]}'?)" if close else "")


def describe(
    error: ValidationError, model: type[BaseModel], repeated: Callable[[tuple], bool] = lambda location: False
) -> str:
    """The failures of one validation, separated by ' | ': the first few, and how many more there are.

    Unknown keys come first: a misspelt key explains the missing one. Failures at locations that only repeat what
    stands elsewhere (`repeated`) are left out.
    """
    failures = sorted(error.errors(), key=lambda failure: failure["type"] != "extra_forbidden")
    failures = [failure for failure in failures if not repeated(failure["loc"])] or failures
    lines = [_describe_one(dict(failure), model) for failure in failures[:MOST_FAILURES]]
    more = len(failures) - len(lines)
    return " | ".join(lines + [f"and {more} more"] * bool(more))


_ALLOWED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "invalid_key": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "names with settings below them",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "{min_length} or more entries",
    "too_long": "{max_length} entries",
    "string_too_short": "text that is not empty",
}


def _describe_one(failure: dict[str, Any], model: type[BaseModel]) -> str:
    location, kind, found = failure["loc"], failure["type"], failure["input"]
    context = failure.get("ctx", {})
    if location[-1:] == ("[key]",):
        location = location[:-2]  # it is the name that is wrong, not what stands below it
    place = _place(model, location)
    key = place.key or "the file"
    match kind:
        case "extra_forbidden":
            return f"{key}: {_unknown_key(location[-1], _place(model, location[:-1]))}"
        case "missing" if isinstance(location[-1], int):
            return f"{_place(model, location[:-1]).key}: more entries are needed, found {location[-1]}"
        case "missing":
            return f"{key}: required key is missing"
        case "value_error":
            cause = context["error"]
            return f"{_joined(place.key, getattr(cause, 'key', '')) or 'the file'}: {cause}"
        case "literal_error":
            return f"{key}: found {shown(found)}; {options(found, _quoted(context['expected']))}"
        case "union_tag_invalid" | "union_tag_not_found":
            tags = [tag for member in place.members for tag in _tags(member)]
            name = context["discriminator"].strip("'")
            if kind == "union_tag_not_found":
                return f"{key}.{name}: required key is missing; allowed: {', '.join(tags)}"
            return f"{key}.{name}: found {shown(found[name])}; {options(found[name], tags)}"
        case "string_pattern_mismatch":
            return f"{key}: found {shown(found)}; allowed: {_IN_WORDS[context['pattern']]}"
        case "model_type" | "model_attributes_type":
            return f"{key}: found {shown(found)}; {_keys_wanted(place.members)}"
        case _ if kind in _ALLOWED:
            return f"{key}: found {shown(found)}; allowed: {_ALLOWED[kind].format(**context)}"
    return f"{key}: found {shown(found)}; {failure['msg'][0].lower()}{failure['msg'][1:]}"


def _unknown_key(wrong: str | int, section: "_Place") -> str:
    allowed = _fields(section.members)
    owners = [tag for other in section.siblings if wrong in other.model_fields for tag in _tags(other)]
    if owners:
        return f"not a key of {section.tag} but of {', '.join(owners)}; {options('', allowed)}"
    return f"unknown key; {options(wrong, allowed)}"


def _keys_wanted(members: list[type[BaseModel]]) -> str:
    optional = not any(field.is_required() for member in members for field in member.model_fields.values())
    return f"allowed: keys {', '.join(_fields(members))}" + (", or {} for none of them" if optional else "")


def _fields(members: list[type[BaseModel]]) -> list[str]:
    named = (entry for member in members for entry in member.model_fields.items())
    return list(dict.fromkeys(name for name, field in named if field.json_schema_extra != FILLED_IN))


def _quoted(expected: str) -> list[str]:
    """The values in pydantic's "'a', 'b' or 'c'"."""
    return re.findall(r"'([^']*)'", expected)


# --- from a pydantic location to a place in the file --------------------------------------------------------


class _Place(NamedTuple):
    """What stands at a location: its key path, the sections possible there, and which of a union it is."""

    key: str
    members: list[type[BaseModel]]
    tag: str | None = None
    siblings: tuple[type[BaseModel], ...] = ()


def _place(model: type[BaseModel], location: tuple[str | int, ...]) -> _Place:
    """Walk the classes along a location. Tags of unions are part of a location, but do not stand in the file."""
    key, here, tag = "", model, None  # type: str, Any, str | None
    siblings: tuple[type[BaseModel], ...] = ()
    for part in location:
        members = _members(here)
        if len(members) > 1:
            here = next((member for member in members if part in _tags(member)), None)
            tag, siblings = str(part), tuple(member for member in members if member is not here)
            continue
        in_list = get_origin(_bare(here)) in (list, tuple)
        key, here, tag, siblings = _joined(key, part if in_list else str(part)), _below(here, part), None, ()
    return _Place(key, _members(here), tag, siblings)


def _below(annotation: Any, part: str | int) -> Any:
    """The type of what stands below a key or index."""
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(annotation)
    return arguments[1 if get_origin(annotation) is dict else 0] if arguments else None


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The sections among which a value may choose; one for a plain section, none for a plain value."""
    annotation = _bare(annotation)
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return [choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)]


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [choice for choice in get_args(annotation) if choice is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _tags(member: type[BaseModel]) -> tuple[str, ...]:
    """The values of a union's discriminator (the first required `Literal`) that stand for this member."""
    fields = member.model_fields.values()
    choices = (field.annotation for field in fields if field.is_required())
    return next((get_args(choice) for choice in choices if get_origin(choice) is Literal), ())


def _joined(key: str, part: str | int) -> str:
    if isinstance(part, int):
        return f"{key}[{part}]"
    return f"{key}.{part}" if key and part else key or part
