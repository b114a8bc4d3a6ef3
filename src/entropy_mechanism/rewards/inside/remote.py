"""The link between tests and the solution they test, which run in two processes.

Tests hold what they expect, so a solution in the same process could read it, change the comparison, or end the
process as if all were well. Here only plain values cross; any other object stays where it is and is reached
through a `Proxy`, which forwards calls, attributes, items, iteration, length and text.

Two rules keep a solution's objects from answering for the tests. A proxy never equals a plain value, unless it is
a tuple, list, dictionary, set, number or text underneath: then that content is compared. And an operation of a
proxy with a plain value may only give another proxy, so that no object can make `abs(object - 0.3) < 0.1` true.
"""

import builtins
import contextlib
import io
import json
import operator
import socket
import struct
import sys
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any

from entropy_mechanism.rewards.inside import values

_LARGEST = 64 << 20
"""Bytes of a message at most."""


class Gone(Exception):
    """The other end of the link is not there any more."""


class Peer:
    """One end of the link: asks the other end for operations, and answers its questions meanwhile.

    The solution's end answers everything. The tests' end lets the objects it has handed over be used, but no name
    that begins with an underscore be looked at, since functions lead to the tests' variables that way.
    """

    def __init__(self, link: socket.socket, *, guarded: bool) -> None:
        """`guarded` makes the tests' end, the other is the solution's."""
        self.link, self.guarded = link, guarded
        self.mine: dict[int, Any] = {}
        self.theirs: dict[int, Any] = {}
        self.operations = OPERATIONS | (_GUARDED if guarded else {})

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the other end do something; its result, or its exception. Lists it changed are changed here too."""
        self._send("ask", operation, arguments)
        while True:
            kind, *rest = self._receive()
            if kind == "ask":
                self._answer(*rest)
                continue
            value, printed, after = rest
            sys.stdout.write(str(printed))
            if kind == "raise":
                raise value if isinstance(value, Exception) else RuntimeError("no exception")
            _write_back(arguments, after)
            return value

    def offer(self, module: ModuleType, failure: Exception | None) -> None:
        """Answer until the other end is gone. A module that could not be made raises its failure when asked."""

        def given() -> tuple[ModuleType, list[str]]:
            if failure is not None:
                raise failure
            names = [name for name in vars(module) if not name.startswith("_")]
            return module, list(getattr(module, "__all__", names))

        self.operations["module"] = given
        with contextlib.suppress(Gone):
            while True:
                self._answer(*self._receive()[1:])

    def module(self, name: str) -> ModuleType:
        """The other end's module under this name; its attributes are asked for when they are used."""
        return _RemoteModule(name, self)

    def _answer(self, operation: str, arguments: tuple) -> None:
        printed = io.StringIO()
        try:
            if self.guarded and operation != "input" and self.mine.get(id(arguments[0])) is not arguments[0]:
                raise PermissionError("only what the tests have handed over can be used")
            with contextlib.nullcontext() if self.guarded else contextlib.redirect_stdout(printed):
                value = self.operations[operation](*arguments)
            self._send("answer", value, printed.getvalue(), arguments)
        except Gone:
            raise
        except BaseException as error:
            # What ends a process, as SystemExit does, would end the tests; there it is an error like others.
            shown = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__} was raised")
            try:
                self._send("raise", shown, printed.getvalue(), ())
            except (TypeError, ValueError, RecursionError):
                self._send("raise", RuntimeError(type(error).__name__), "", ())

    # --- messages ---------------------------------------------------------------------------------------------

    def _send(self, *message: Any) -> None:
        body = json.dumps(values.encode(message, self._refer)).encode()
        try:
            self.link.sendall(struct.pack("Q", len(body)) + body)
        except OSError as error:
            raise Gone(str(error)) from None

    def _receive(self) -> tuple:
        (size,) = struct.unpack("Q", self._exactly(8))
        if size > _LARGEST:
            raise Gone(f"a message of {size} bytes, allowed are {_LARGEST}")
        return values.decode(json.loads(self._exactly(size)), self._resolve)

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.link.recv(min(size, 1 << 20))
            if not part:
                raise Gone("the other process has ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _refer(self, value: Any) -> list:
        """How to speak of an object that is not copied."""
        if type(value) is Proxy:
            return ["yours", _key(value)]
        if isinstance(value, type):
            if "_remote_key" in vars(value):
                return ["yours", vars(value)["_remote_key"]]
            name = value.__name__
            if vars(builtins).get(name) is value:
                return ["builtin", name]
        if isinstance(value, Exception) and not self.guarded:
            plain = [argument for argument in value.args if type(argument) in values.EXACT]
            parts = (type(value), _text(value), plain)
            return ["error", *(values.encode(part, self._refer) for part in parts)]
        self.mine[id(value)] = value
        if isinstance(value, type) and issubclass(value, Exception) and not self.guarded:
            bases = [base for base in value.__bases__ if issubclass(base, Exception)]
            return ["error class", id(value), value.__name__, *(self._refer(base) for base in bases)]
        return ["mine", id(value)]

    def _resolve(self, tag: str, parts: list) -> Any:
        """The object that the other end speaks of. Raises ValueError for what it could not mean."""
        if tag == "yours":
            return self.mine[parts[0]]
        if tag == "builtin" and isinstance(kind := vars(builtins).get(parts[0]), type):
            return kind
        if tag == "error" and self.guarded:
            kind, text, arguments = (values.decode(part, self._resolve) for part in parts)
            return _error(kind, text, arguments)
        if tag == "error class" and self.guarded:
            if parts[0] not in self.theirs:
                bases = tuple(values.decode(base, self._resolve) for base in parts[2:])
                body = {"_remote_key": parts[0], "_text": "", "__str__": lambda error: error._text}
                self.theirs[parts[0]] = type(str(parts[1]), bases, body)
            return self.theirs[parts[0]]
        if tag == "mine":
            return self.theirs.setdefault(parts[0], Proxy(self, parts[0]))
        if tag in ("error", "error class"):  # of the tests' own: to the solution an error without a name
            return RuntimeError()
        raise ValueError(f"a message speaks of an unknown {tag}")


class _RemoteModule(ModuleType):
    """A module whose attributes are the other end's."""

    def __init__(self, name: str, peer: Peer) -> None:
        super().__init__(name)
        self.__dict__["_peer"] = peer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if "_module" not in self.__dict__:
            module, public = self.__dict__["_peer"].ask("module")
            self.__dict__.update(_module=module, __all__=[str(item) for item in public])
        return self.__dict__["__all__"] if name == "__all__" else getattr(self.__dict__["_module"], name)


# --- objects of the other end ---------------------------------------------------------------------------------


class Proxy:
    """An object of the other end."""

    __slots__ = ("__weakref__", "_key", "_peer")

    def __init__(self, peer: Peer, key: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_key", key)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it there."""
        return _ask(self, "call", arguments, keywords)

    def __exit__(self, *error: Any) -> None:
        _ask(self, "exit")

    def __instancecheck__(self, value: Any) -> bool:
        """Whether the other end's class has the other end's object."""
        return isinstance(value, Proxy) and bool(_ask(value, "isinstance", self))

    def __subclasscheck__(self, value: Any) -> bool:
        """Whether one of the other end's classes is a subclass of another."""
        return isinstance(value, Proxy) and bool(_ask(value, "issubclass", self))


def _key(proxy: Proxy) -> int:
    return object.__getattribute__(proxy, "_key")


def _ask(proxy: Proxy, operation: str, *arguments: Any) -> Any:
    return object.__getattribute__(proxy, "_peer").ask(operation, proxy, *arguments)


def _forwarded(operation: str) -> Callable:
    return lambda self, *arguments: _ask(self, operation, *arguments)


def _compared(name: str) -> Callable:
    def compare(self: Proxy, other: Any) -> Any:
        if isinstance(other, Proxy):
            return bool(_ask(self, name, other))
        try:
            content = _ask(self, "content")
        except TypeError:
            return NotImplemented
        return NotImplemented if type(content) is Proxy else getattr(operator, name)(content, other)

    return compare


def _two_sided(name: str) -> Callable:
    def operate(self: Proxy, other: Any) -> Any:
        value = _ask(self, name, other)
        return value if type(value) is Proxy or type(other) is Proxy else NotImplemented

    return operate


_COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")
_TWO_SIDED = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
_BUILTIN: tuple[Callable, ...] = (
    *(len, iter, next, str, repr, hash, bool, int, float, abs, reversed, dir),
    *(isinstance, issubclass),
)
_OPERATORS = ("getitem", "setitem", "delitem", "contains", "neg")
OPERATIONS: dict[str, Callable] = {
    "call": lambda function, arguments, keywords: function(*arguments, **keywords),
    "content": values.content,
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "enter": lambda value: value.__enter__(),
    "exit": lambda value: value.__exit__(None, None, None),
    **{function.__name__: function for function in _BUILTIN},
    **{name: getattr(operator, f"__{name}__") for name in (*_OPERATORS, *_COMPARED, *_TWO_SIDED)},
}
for _name in ("getattr", "setattr", "delattr", "enter", *_OPERATORS, *(f.__name__ for f in _BUILTIN[:-2])):
    setattr(Proxy, f"__{_name}__", _forwarded(_name))
for _name in _COMPARED:
    setattr(Proxy, f"__{_name}__", _compared(_name))
for _name in _TWO_SIDED:
    setattr(Proxy, f"__{_name}__", _two_sided(_name))


def _public(access: Callable) -> Callable:
    """Access to attributes whose names do not begin with an underscore, of objects that are no code."""

    def guarded(value: Any, name: str, *new: Any) -> Any:
        if str(name).startswith("_") or (new and isinstance(value, (type, ModuleType, FunctionType, MethodType))):
            raise AttributeError(name)
        return access(value, str(name), *new)

    return guarded


_GUARDED: dict[str, Callable] = {
    "getattr": _public(getattr),
    "setattr": _public(setattr),
    "delattr": _public(delattr),
    "input": lambda prompt: builtins.input(prompt),
}


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _error(kind: Any, text: Any, arguments: Any) -> Exception:
    """An exception of the solution as the tests see it: its class and text, and its plain arguments."""
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = Exception
    error: Any
    try:
        error = kind(*arguments)
    except Exception:
        error = Exception.__new__(kind)
    if "_remote_key" in vars(kind):
        error._text = str(text)
    return error


def _write_back(before: Any, after: Any) -> None:
    """Change containers here as the call has changed their copies there."""
    kind = type(before)
    if kind is not type(after) or before is after:
        return
    if kind in (list, tuple):
        for n, (old, new) in enumerate(zip(before, after, strict=False)):
            if type(old) is type(new) and type(old) in values.CONTAINERS:
                _write_back(old, new)
            elif kind is list:
                before[n] = new
        if kind is list:
            before[len(after) :] = after[len(before) :]
    elif kind in (dict, set, bytearray) or kind.__module__ == "collections":
        kept = {key: before[key] for key in before} if isinstance(before, dict) else {}
        before.clear()
        fill = before.update if hasattr(before, "update") else before.extend
        fill(after)
        for key, old in kept.items():
            if key in after and type(old) is type(after[key]) and type(old) in (list, dict, set):
                _write_back(old, after[key])
                before[key] = old
