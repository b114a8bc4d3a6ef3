"""Turns failed validation into one line that a person can act on."""

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


class ConfigError(Exception):
    """Configuration that cannot be used; the message names the file, the key and what is allowed."""


def suggest(name: Any, known: Iterable[str]) -> str:
    """' (did you mean …?)' for a misspelt name, else nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """All failures of one validation on one line, separated by ' | '."""
    return " | ".join(_describe_one(failure, model) for failure in error.errors())


def _describe_one(failure: dict[str, Any], model: type[BaseModel]) -> str:
    cause = failure.get("ctx", {}).get("error")
    key = getattr(cause, "key", None) or _dotted(failure["loc"], failure["type"])
    found = failure["input"]
    match failure["type"]:
        case "extra_forbidden":
            allowed = _fields_at(model, failure["loc"][:-1])
            wrong = failure["loc"][-1]
            return f"{key}: unknown key; allowed: {', '.join(allowed)}{suggest(wrong, allowed)}"
        case "missing":
            return f"{key}: required key is missing"
        case "value_error":
            return f"{key}: {cause}"
        case "literal_error" | "union_tag_invalid":
            context = failure["ctx"]
            allowed = context.get("expected") or context.get("expected_tags", "")
            if failure["type"] == "union_tag_invalid":
                key, found = f"{key}.name", context.get("tag")
            options = [option.strip("'") for option in allowed.replace(" or ", ", ").split(", ")]
            return f"{key}: found '{found}'; allowed: {', '.join(options)}{suggest(found, options)}"
        case "union_tag_not_found":
            return f"{key}.name: required key is missing"
        case "string_pattern_mismatch":
            return (
                f"{key}: found '{found}'; allowed: lower-case letters, digits and single - . @ + between them"
            )
    shown = "" if isinstance(found, dict | list | tuple) else f"found {found!r}; "
    return f"{key}: {shown}{failure['msg'][0].lower()}{failure['msg'][1:]}"


def _dotted(location: tuple[str | int, ...], kind: str) -> str:
    """A pydantic location as a key path: tags of unions and the marker for dictionary keys left out."""
    parts = [part for part in location if part != "[key]"]
    text = ""
    for index, part in enumerate(parts):
        if isinstance(part, int):
            text += f"[{part}]"
        elif index and parts[index - 1] == "objective" and index + 1 <= len(parts) and _is_tag(part):
            continue
        else:
            text += f".{part}" if text else str(part)
    return text or "the file"


def _is_tag(part: str | int) -> bool:
    return part in ("policy-gradient", "ppo-clip", "clip-cov", "kl-cov")


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Names of the keys allowed at a location of a nested model."""
    candidates: list[Any] = [model]
    for part in location:
        following: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                field = candidate.model_fields.get(str(part))
                if field is not None:
                    following += _models_in(field.annotation)
                elif str(part) == _tag(candidate):
                    following.append(candidate)  # the tag of a union stands in the location, not in the file
        candidates = following or candidates
    tags = [candidate for candidate in candidates if _tag(candidate) == location[-1:]]
    chosen = tags or candidates
    return sorted({name for candidate in chosen for name in candidate.model_fields})


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("name")
    values = get_args(field.annotation) if field else ()
    return values[0] if values else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
