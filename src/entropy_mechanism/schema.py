"""JSON schemas of the configuration files, for editors: generated from the classes that validate them.

An experiment file is checked as it is written, before `extends` is resolved: a method that extends another may
leave out its objective, or give a part of it.
"""

import ast
import inspect
import itertools
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from entropy_mechanism.config import Experiment, Site, Training
from entropy_mechanism.methods import TrainingOverride
from entropy_mechanism.settings import Strict

FILES: dict[str, type[BaseModel]] = {"experiment": Experiment, "site": Site}


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without the titles that it makes from names, which repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema(kind: str) -> dict[str, Any]:
    """The schema of an `experiment` or of the `site` file (JSON Schema 2020-12)."""
    made = FILES[kind].model_json_schema(schema_generator=_Generator)
    _describe(made)
    _refine(made)
    if kind == "experiment":
        _allow_extends(made["$defs"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def text(kind: str) -> str:
    """The content of `workflow/schemas/<kind>.schema.json`."""
    return json.dumps(schema(kind), indent=2) + "\n"


def print_schema(kind: str) -> None:
    """Print the schema of one kind of file."""
    print(text(kind), end="")


def _describe(made: dict[str, Any]) -> None:
    """In place: give every key the text that stands below its field in the class."""
    sections = {section.__name__: section for section in _sections(Strict)}
    definitions = made.get("$defs", {})
    for name, definition in {made["title"]: made, **definitions}.items():
        texts = help_texts(sections[name]) if name in sections else {}
        for key, value in definition.get("properties", {}).items():
            if name == TrainingOverride.__name__:
                value.pop("default")  # what is left out is as in the experiment, and not null
            referred = definitions.get(value.get("$ref", "").rpartition("/")[2], {})
            if key in texts and texts[key] != referred.get("description"):
                definition["properties"][key] = dict(sorted((value | {"description": texts[key]}).items()))


def _sections(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for section in base.__subclasses__():
        yield section
        yield from _sections(section)


def help_texts(section: type[BaseModel]) -> dict[str, str]:
    """The string below each field, of a class and those it inherits from; made classes have another's."""
    section = Training if section is TrainingOverride else section
    found: dict[str, str] = {}
    for base in reversed([base for base in section.__mro__ if issubclass(base, Strict)]):
        for node in ast.walk(ast.parse(inspect.getsource(base))):
            body = node.body if isinstance(node, ast.ClassDef) else []
            for field, text in itertools.pairwise(body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                        found[name] = inspect.cleandoc(words)
    return found


def _refine(node: Any) -> None:
    """In place: refuse names that do not match their pattern; drop OpenAPI's `discriminator`, keys filled in."""
    if isinstance(node, list):
        for item in node:
            _refine(item)
    if not isinstance(node, dict):
        return
    patterns = node.get("patternProperties")
    if isinstance(patterns, dict) and "additionalProperties" not in node:
        ((pattern, values),) = node.pop("patternProperties").items()
        node |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
    for key, value in list(node.get("properties", {}).items()):
        if isinstance(value, dict) and value.get("readOnly"):
            del node["properties"][key]
    if isinstance(node.get("discriminator"), dict):
        del node["discriminator"]
    for value in node.values():
        _refine(value)


def _allow_extends(definitions: dict[str, Any]) -> None:
    """In place: without `extends`, a method needs an objective with a name; with it, any part of one will do."""
    method = definitions["Method"]
    objective = method["properties"]["objective"]
    objective["anyOf"] = objective.pop("oneOf")
    for variant in objective["anyOf"]:
        definition = definitions[variant["$ref"].rpartition("/")[2]]
        definition["required"] = []
    method["required"] = [key for key in method.get("required", ()) if key != "objective"]
    method["if"] = {"required": ["extends"], "properties": {"extends": {"type": "string"}}}
    method["else"] = {"required": ["objective"], "properties": {"objective": {"required": ["name"]}}}
