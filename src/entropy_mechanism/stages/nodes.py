"""Several machines (nodes) that train one policy: one `train` on each, which meet over TCP before anything else.

Node 0 leads: it takes the run's lock, writes what is written, and says how it ended. The others answer for their
machine, start their share of the ranks when told to, and end as node 0 does. A node has to read a secret from the
store before it may join.

Imports nothing heavy: it runs before a stage computes.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from entropy_mechanism.config_errors import ConfigError
from entropy_mechanism.stages.peers import Link, NodesError, Peers, Place
from entropy_mechanism.stages.stopping import INTERRUPTED, StopRequest, tell

ARRIVAL = 300.0
"""Seconds that nodes wait for one another at the start."""
TELLING = 60.0
"""Seconds for which a node whose inputs are invalid looks for node 0, to tell it; node 0's may be, too."""
ANSWER = 60.0
"""Seconds that a launcher waits for the next word of another at the start."""
APPEARANCE = 20.0
"""Seconds until a file of another node is there for certain: network file systems remember what was missing."""
PARTING = 60.0
"""Seconds that a node waits for node 0's last word after it was asked to stop before the start."""
_PORTS = range(16384, 32768)  # below the ports that Linux gives to outgoing connections


def find_place(
    nodes: int | None, node_rank: int | None, main_address: str | None, port: int | None, name: str
) -> Place:
    """This launcher's place from the options of `train` and, what these leave open, from the Slurm step.

    The port is derived from `name` and the step, so that two trainings on one machine do not meet.

    Raises ConfigError when the options do not say enough or contradict each other.
    """
    step: Mapping[str, str] = os.environ if "SLURM_STEP_NUM_NODES" in os.environ else {}
    count = nodes or int(step.get("SLURM_STEP_NUM_NODES", "1"))
    if count == 1:
        return Place()
    if step and nodes is None and step.get("SLURM_STEP_NUM_TASKS", str(count)) != str(count):
        raise ConfigError(
            f"srun started {step['SLURM_STEP_NUM_TASKS']} launchers on {count} nodes; allowed: one a node, which "
            f"starts the ranks there (srun --nodes={count} --ntasks={count} --ntasks-per-node=1)"
        )
    rank = node_rank if node_rank is not None else step.get("SLURM_NODEID")
    addresses: list[str | None] = [main_address] if main_address else []
    if not addresses and "SLURM_STEP_NODELIST" in step:
        # srun mostly runs on the first node; its address helps where no resolver knows the names of nodes.
        addresses = [first_host(step["SLURM_STEP_NODELIST"]), step.get("SLURM_LAUNCH_NODE_IPADDR")]
    if rank is None or not any(addresses):
        raise ConfigError(
            f"--nodes {count}: --node-rank (0 to {count - 1}) and --main-address (a name or address of node 0 "
            "that the others can reach) are needed too, where srun does not start the launchers"
        )
    if not 0 <= int(rank) < count:
        raise ConfigError(f"--node-rank: found {rank}; allowed: 0 to {count - 1}, since there are {count} nodes")
    # Launchers that were told their places may each be in a step, or a job, of its own.
    launch = "{SLURM_JOB_ID}.{SLURM_STEP_ID}".format_map(step) if step and nodes is None else ""
    if port is not None and port not in range(1, 65535):
        raise ConfigError(f"--port: found {port}; allowed: 1 to 65534, since the port after it is taken, too")
    digest = hashlib.sha256(f"{launch} {name}".encode()).digest()
    port = port or _PORTS[int.from_bytes(digest[:4]) % len(_PORTS)]
    return Place(count, int(rank), tuple(filter(None, addresses)), port, launch)


def first_host(names: str) -> str:
    """The first name of a list as Slurm writes it, such as `gpu[03-06,09]-ib,login1`."""
    first = re.match(r"[^,\[]*(?:\[[^\]]*\][^,\[]*)*", names)
    assert first is not None  # it matches an empty text, too
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])


@contextlib.contextmanager
def lead(
    place: Place,
    store: Path,
    report: Callable[[], dict[str, Any]],
    faults: Callable[[list[dict[str, Any]]], list[list[str]]],
    stop: StopRequest,
) -> Iterator[Peers]:
    """On node 0: meet the others, check all, and at the end tell them how the body ended.

    `report` describes this machine, `faults` finds what is wrong with each of the reports of all nodes.
    Raises NodesError naming the nodes that did not come or are not fit, and what to do; SystemExit when stopped.
    """
    peers = Peers(place, hosts={0: os.uname().nodename})
    if place.count == 1:
        yield peers
        return
    own = report()
    status, text = 0, ""
    stop.others = peers.wants_to_stop
    try:
        with _secret(store) as (name, secret), _listening(place) as listener:
            reports = {0: own} | _arrivals(peers, listener, own, store / name, secret, stop)
        wrong = faults([reports[node] for node in range(place.count)])
        if any(wrong):
            lines = [f"{peers.name(node)}: {fault}" for node, found in enumerate(wrong) for fault in found]
            raise NodesError(f"not started, since not all nodes are fit: {'; '.join(lines)}")
        yield peers
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
        raise
    except BaseException as error:
        status, text = 1, " ".join(str(error).split()) or type(error).__name__
        raise
    finally:
        peers.say("verdict", status=status, text=text)


@contextlib.contextmanager
def join(
    place: Place,
    store: Path,
    report: Callable[[], dict[str, Any]],
    stop: StopRequest,
    invalid: Exception | None = None,
) -> Iterator[Peers]:
    """On another node: find node 0, answer for this machine, and yield the way to it.

    `invalid` is what is wrong with this node's inputs; node 0, where they may be in order, is told.
    Raises NodesError, or `invalid`, when node 0 cannot be reached; SystemExit when stopped before that.
    """
    peers = Peers(place, hosts={place.rank: os.uname().nodename})
    mine = report() | {"node": place.rank, "launch": place.launch, "invalid": str(invalid or "")}
    deadline, answered, refusal = time.monotonic() + (TELLING if invalid else ARRIVAL), False, ""
    while not peers.links:
        stop.leave_if_asked(peers.name(place.rank))
        address = place.addresses[int(time.monotonic()) % len(place.addresses)]
        try:
            link = Link(socket.create_connection((address, place.port), timeout=5))
        except OSError as error:
            refusal = refusal if answered else error.strerror or str(error)
        else:
            link.send(kind="hello", **mine)
            answer = link.wait(ANSWER) or {}
            if answer.get("kind") == "welcome" and answer.keys() >= {"file", "host"}:
                link.send(kind="secret", secret=_read(store / Path(answer["file"]).name))
                peers.links[0], peers.hosts[0] = link, answer["host"]
                break
            link.close()
            answered, refusal = True, str(answer.get("text", "no answer of a launcher"))
        if time.monotonic() > deadline:
            if invalid:
                raise invalid
            raise NodesError(
                f"{peers.name(place.rank)}: node 0 cannot be reached at {' or '.join(place.addresses)}, port "
                f"{place.port}, since {ARRIVAL:.0f} s ({refusal}); is it started, can this node reach that "
                "address and port (--main-address, --port)?"
            )
        time.sleep(0.5)
    try:
        yield peers
    finally:
        peers.links[0].close()


def await_word(peers: Peers, stop: StopRequest, kind: str) -> dict[str, Any] | None:
    """On another node: node 0's message of this kind, or None when its verdict comes first, or it is gone."""
    link, deadline = peers.links[0], float("inf")
    while True:
        found = {message.get("kind"): message for message in link.receive()}
        peers.verdict = found.get("verdict", peers.verdict)
        if kind in found:
            return found[kind]
        if peers.verdict or not link.open or time.monotonic() > deadline:
            return None
        if stop() and deadline == float("inf"):
            link.send(kind="stop", reason=stop.reason)
            deadline = time.monotonic() + PARTING
        time.sleep(0.05)


def leave(peers: Peers, stop: StopRequest) -> int:
    """On another node: the exit status, which is node 0's, once that has ended; NodesError where that is gone."""
    if peers.verdict is None:
        await_word(peers, stop, "verdict")
    if peers.verdict is None:
        if stop.reason and not peers.failures:
            return INTERRUPTED
        raise NodesError(f"{peers.name(0)} is gone: its launcher ended without a word; so ends this node")
    deadline = time.monotonic() + PARTING
    while peers.links[0].open and time.monotonic() < deadline:  # srun may end all when the first ends
        peers.links[0].receive()
        time.sleep(0.02)
    if peers.verdict["text"]:
        tell(f"{peers.name(peers.place.rank)} ends with node 0: {peers.verdict['text']}")
    return int(peers.verdict["status"])


def _arrivals(
    peers: Peers, listener: socket.socket, own: dict[str, Any], proof: Path, secret: str, stop: StopRequest
) -> dict[int, dict[str, Any]]:
    """The reports of all other nodes, whose links are put into `peers`; each has the fields of node 0's `own`."""
    reports: dict[int, dict[str, Any]] = {}
    # Connections that are not known yet: what they said first, and until when they are waited for.
    strangers: dict[Link, tuple[dict[str, Any] | None, float]] = {}
    deadline = time.monotonic() + ARRIVAL
    try:
        while missing := sorted(set(range(1, peers.place.count)) - reports.keys()):
            stop.leave_if_asked(peers.name(0))
            if time.monotonic() > deadline:
                raise NodesError(
                    f"of {peers.place.count} nodes, {', '.join(map(str, missing))} did not come within "
                    f"{ARRIVAL:.0f} s to {peers.hosts[0]}, port {peers.place.port}; is a launcher started there, "
                    "and can it reach this one (--main-address, --port)?"
                )
            with contextlib.suppress(TimeoutError):
                strangers[Link(listener.accept()[0])] = (None, time.monotonic() + ANSWER)
            for link, (hello, until) in list(strangers.items()):
                message = next(iter(link.receive(1)), None)
                if message is None and link.open and time.monotonic() < until:
                    continue
                if hello is None and message and _is_hello(message, own, missing, peers.place):
                    link.send(kind="welcome", file=proof.name, host=peers.hosts[0])
                    strangers[link] = (message, time.monotonic() + ANSWER)
                    continue
                del strangers[link]
                node = hello["node"] if hello else None
                if hello is None or node not in missing or node in reports or not (message or link.open):
                    link.send(kind="refusal", text="another training listens there, or this node has come already")
                    link.close()
                    continue
                peers.links[node], peers.hosts[node] = link, str(hello["host"])
                reports[node] = hello | {"sees_store": (message or {}).get("secret") == secret}
    finally:
        for link in strangers:
            link.close()
    return reports


def _is_hello(message: dict[str, Any], own: dict[str, Any], missing: list[int], place: Place) -> bool:
    """Whether this is the report of a node of this training that has not come yet."""
    return (
        message.get("kind") == "hello"
        and message.get("node") in missing
        and message.get("launch") == place.launch
        and message.keys() >= own.keys() | {"host"}
    )


@contextlib.contextmanager
def _secret(store: Path) -> Iterator[tuple[str, str]]:
    """A file in the store that only this user's processes can read: its name and content."""
    store.mkdir(parents=True, exist_ok=True)
    name, secret = f".nodes-{secrets.token_hex(8)}", secrets.token_hex(16)
    descriptor = os.open(store / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(secret)
            handle.flush()
            os.fsync(descriptor)
        yield name, secret
    finally:
        (store / name).unlink(missing_ok=True)


def _read(path: Path) -> str | None:
    """The text of a file that was just written elsewhere, None where it does not appear."""
    deadline = time.monotonic() + APPEARANCE
    while True:
        try:
            return path.read_text()
        except OSError:
            if time.monotonic() > deadline:
                return None
        time.sleep(0.2)


@contextlib.contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """A listening socket on all addresses of this machine, of both versions of IP where there are two."""
    try:
        try:
            listener = socket.create_server(("", place.port), family=socket.AF_INET6, dualstack_ipv6=True)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise
            listener = socket.create_server(("", place.port))
    except OSError as error:
        raise NodesError(
            f"port {place.port} of {os.uname().nodename} cannot be used ({error.strerror}): another training or "
            "program has it; give all nodes of this one another --port"
        ) from None
    with listener:
        listener.settimeout(0.2)
        yield listener
