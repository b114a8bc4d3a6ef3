"""Code of one's own that an experiment names as `file.py:function`: checked by reading, run only where it is used.

An experiment is read wherever jobs are planned, so the file is parsed there and never imported: a missing file, a
misspelt function or option is found before any job, and nothing that it imports is loaded. Its SHA-256 becomes
part of the settings, and so of `run.yaml`, of the run's fingerprint and of what makes Snakemake run a job again.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from entropy_mechanism.config_errors import CODE_PATTERN, KeyedError, options

Code = Annotated[str, Field(pattern=CODE_PATTERN)]
"""`path/to/file.py:function`; the path is relative to the folder where Snakemake runs."""


class CodeChanged(OSError):
    """The file is not what it was when the experiment was read. Not permanent: planning again cures it."""


@dataclass(frozen=True)
class Signature:
    """The parameters of a function, by their names."""

    names: tuple[str, ...]
    required: frozenset[str]
    """Those without a default."""
    any_name: bool
    """Whether it takes `**options` of any name."""


def described(raw: Mapping[str, Any], given: tuple[str, ...]) -> dict[str, str]:
    """`sha256` of the file of a section with `code` and `options`, to be added to it.

    Nothing for a section that has it, one of a `run.yaml`. The function must be defined in the file, take the
    `given` arguments first, and take the `options` by name. Raises `KeyedError` where not.
    """
    code, chosen = raw.get("code"), raw.get("options") or {}
    if "sha256" in raw or not isinstance(code, str) or not re.fullmatch(CODE_PATTERN, code):
        return {}
    found = signature(code)
    if found.names[: len(given)] != given:
        raise KeyedError(
            "code",
            f"{code} has to take {', '.join(given)} first, found {', '.join(found.names) or 'no parameter'}",
        )
    if isinstance(chosen, dict):
        _check_options(chosen, found, given)
    return {"sha256": _parsed(_file(code))[0]}


def refuse_digest(raw: Any, section: str = "") -> None:
    """Raises `KeyedError` where an experiment has `sha256`, with which its file would not be checked."""
    if isinstance(raw, Mapping) and "sha256" in raw:
        raise KeyedError(f"{section}sha256", "unknown key; the project fills it in, from the file of `code`")


def signature(code: str) -> Signature:
    """The parameters of the function that `code` names; its file is parsed, not run. Raises `KeyedError`."""
    path, name = _file(code), code.rpartition(":")[2]
    _, tree = _parsed(path)
    functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
    if name not in functions:
        raise KeyedError("code", f"{path} defines no function {name}; {options(name, functions)}")
    arguments = functions[name]
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    without = positional[: len(positional) - len(arguments.defaults)]
    by_name = [argument.arg for argument in arguments.kwonlyargs]
    bare = [name for name, default in zip(by_name, arguments.kw_defaults, strict=True) if default is None]
    return Signature((*positional, *by_name), frozenset([*without, *bare]), arguments.kwarg is not None)


def defined(path: str) -> tuple[str, set[str]]:
    """SHA-256 of a file, and the names that it defines at its top level. Raises `KeyedError` like `signature`."""
    digest, tree = _parsed(Path(path))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        names |= {
            part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
        }
    return digest, names


def _parsed(path: Path) -> tuple[str, ast.Module]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise KeyedError("code", f"{path} cannot be read from {Path.cwd()}: {error.strerror}") from None
    try:
        return hashlib.sha256(text).hexdigest(), ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise KeyedError("code", f"{path}{line} is no valid Python: {error}") from None


def _check_options(chosen: dict[str, Any], found: Signature, given: tuple[str, ...]) -> None:
    taken = [name for name in found.names if name not in (*given, COVARIANCE)]
    for name, value in chosen.items():
        if name not in taken and (not found.any_name or name in (*given, COVARIANCE)):
            raise KeyedError(f"options.{name}", f"the function has no such option; {options(name, taken)}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise KeyedError(
                f"options.{name}", f"found {value!r}; allowed: text, finite numbers, true, false, lists of them"
            ) from None
    missing = [name for name in taken if name in found.required and name not in chosen]
    if missing:
        raise KeyedError("options", f"the function needs {', '.join(missing)}, which has no default")


COVARIANCE = "covariance"
"""Parameter of an objective that is not an option: it gets the covariance of every token."""


def function(code: str, digest: str) -> Callable[..., Any]:
    """The function itself; its file is run, once a process.

    Raises `CodeChanged` when the file has another SHA-256 than `digest`. What it raises when it is run passes.
    """
    return getattr(module(str(_file(code)), digest), code.rpartition(":")[2])


@functools.lru_cache
def module(path: str, digest: str) -> Any:
    """The file as a module, under a name that its content determines. Raises `CodeChanged` like `function`."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise CodeChanged(f"{path} cannot be read from {Path.cwd()}: {error.strerror}") from None
    if hashlib.sha256(text).hexdigest() != digest:
        raise CodeChanged(
            f"{path} has changed since the experiment was read; start Snakemake again to plan with it as it is"
        )
    name = f"own_code_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # for every path that ends in .py
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # before it runs, as an import does: dataclasses look themselves up there
    exec(compile(text, path, "exec"), made.__dict__)
    return made


def _file(code: str) -> Path:
    return Path(code.rpartition(":")[0])
