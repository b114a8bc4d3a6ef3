"""Connections between the launchers of one training, and what each knows of the others.

A node whose launcher has ended is noticed at once, one that went dark by the kernel's keepalive within a minute; a
machine that is merely suspended is waited for. Nothing that arrives is executed.
"""

import contextlib
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any

LOST = -1000
"""The status of a node that ended without a word; before all others when the cause of a failure is sought."""
_LONGEST = 1 << 20  # bytes of a message


class NodesError(OSError):
    """The nodes of a training did not meet, or one of them is not fit for it."""


@dataclass(frozen=True)
class Place:
    """This launcher among those of a training; by default it is alone."""

    count: int = 1
    rank: int = 0
    addresses: tuple[str, ...] = ()
    """Names or addresses of node 0, to be tried in turn."""
    port: int = 0
    launch: str = ""
    """Slurm's job and step; empty elsewhere. Launchers of another one are sent away."""


class Link:
    """A connection to another launcher: one JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        """Talk over `connection`, and let the kernel notice within a minute when the other machine is gone."""
        self.socket, self.open, self.rest = connection, True, b""
        self.waiting: list[dict[str, Any]] = []
        options = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 60_000}
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            with contextlib.suppress(AttributeError, OSError):  # not every system has each
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    @property
    def interface(self) -> str | None:
        """The network interface that the connection uses here."""
        import psutil

        own = _plain(self.socket.getsockname()[0])
        found = psutil.net_if_addrs().items()
        return next((name for name, entries in found if own in {entry.address for entry in entries}), None)

    def send(self, **message: Any) -> None:
        """Send one message; a connection that is gone is noticed by `receive`."""
        self.socket.settimeout(30)
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, most: int | None = None) -> list[dict[str, Any]]:
        """The messages that have arrived, at most `most`; `open` becomes False when no more will arrive."""
        while self.open:
            self.socket.settimeout(0)
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.rest += data
            self.open = bool(data) and len(self.rest) < _LONGEST
        *lines, self.rest = self.rest.split(b"\n")
        try:
            self.waiting += [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError):  # whoever this is, it is no launcher
            self.open = False
        taken, self.waiting = self.waiting[:most], self.waiting[len(self.waiting[:most]) :]
        return taken

    def wait(self, seconds: float) -> dict[str, Any] | None:
        """The next message, if it comes in time."""
        deadline = time.monotonic() + seconds
        while (self.open or self.waiting) and time.monotonic() < deadline:
            if messages := self.receive(1):
                return messages[0]
            time.sleep(0.02)
        return None

    def close(self) -> None:
        """End the connection."""
        self.open = False
        self.socket.close()


@dataclass
class Peers:
    """The other launchers as seen from this one; nobody, by default.

    Failures are pairs of a status and a line that names what failed.
    """

    place: Place = Place()
    links: dict[int, Link] = field(default_factory=dict)
    hosts: dict[int, str] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    """Nodes whose ranks have all ended, and those that are gone."""
    asked: str | None = None
    """Why another node wants to stop before the start."""
    verdict: dict[str, Any] | None = None
    """How node 0 says that the run ended."""

    @property
    def interface(self) -> str | None:
        """The network interface that leads to the others."""
        return next((link.interface for link in self.links.values()), None)

    @property
    def busy(self) -> bool:
        """Whether ranks of other nodes may still run; node 0 waits for them."""
        return self.place.rank == 0 and bool(self.links.keys() - self.done)

    def poll(self) -> None:
        """Take in what the others say."""
        for node, link in self.links.items():
            for message in link.receive():
                match message.get("kind"):
                    case "failed":
                        self.failures.append((int(message["status"]), str(message["text"])))
                    case "ended":
                        self.done.add(node)
                    case "stop":
                        self.asked = f"{message['reason']} on {self.name(node)}"
                    case "verdict":
                        self.verdict = message
            if not link.open and node not in self.done:
                self.done.add(node)
                if self.verdict is None:
                    self.failures.append((LOST, f"{self.name(node)} is gone: its launcher ended without a word"))

    def wants_to_stop(self) -> str | None:
        """Why another node wants to stop, if one does."""
        self.poll()
        return self.asked

    def say(self, kind: str, **content: Any) -> None:
        """Send a message to all others."""
        for link in self.links.values():
            link.send(kind=kind, **content)

    def name(self, node: int) -> str:
        """How a person knows a node."""
        host = f" ({self.hosts[node]})" if node in self.hosts else ""
        return f"node {node} of {self.place.count}{host}"


def main_address(peers: Peers) -> str:
    """Node 0's address as this node's ranks reach it; numeric, so that no resolver is asked again."""
    if peers.place.rank == 0:
        return "127.0.0.1"
    return _plain(peers.links[0].socket.getpeername()[0])


def _plain(address: str) -> str:
    """An IPv4 address as such, also where a socket of both versions writes it as one of IPv6."""
    return address.removeprefix("::ffff:")
