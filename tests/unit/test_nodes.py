"""Launchers of several nodes: their places, how they meet, and how they end."""

import contextlib
import errno
import socket
import threading
import time

import pytest
from training_cases import config_for

from entropy_mechanism.config import Compute, ConfigError
from entropy_mechanism.stages import nodes, train
from entropy_mechanism.stages.nodes import await_word, find_place, first_host, join, lead, leave
from entropy_mechanism.stages.peers import Link, NodesError, Peers, Place

STEP = {
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NODELIST": "gpu[03-05,11]-a,login1",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.3",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
}


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch):
    for name in STEP:
        monkeypatch.delenv(name, raising=False)


class Never:
    """A request to stop that does not come, until it is given a reason."""

    def __init__(self):
        self.reason, self.others = None, lambda: None

    def __call__(self):
        self.reason = self.reason or self.others()
        return self.reason is not None

    def leave_if_asked(self, what):
        if self():
            raise SystemExit(75)


def test_a_launcher_is_alone_unless_told_otherwise():
    assert find_place(None, None, None, None, "run") == Place()
    assert Place().count == 1


def test_a_slurm_step_gives_every_launcher_its_place(monkeypatch):
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    place = find_place(None, None, None, None, "run")
    assert (place.count, place.rank, place.launch) == (4, 2, "77.0")
    assert place.addresses == ("gpu03-a", "10.0.0.3")
    assert find_place(1, None, None, None, "run") == Place()  # by hand inside an interactive step
    assert find_place(None, None, "ib3", 1234, "run").addresses == ("ib3",)


def test_ports_differ_between_jobs_and_runs_and_stay_below_those_of_outgoing_connections(monkeypatch):
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    ports = set()
    for job in range(40):
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        ports |= {find_place(None, None, None, None, run).port for run in ("one", "other")}
    assert len(ports) > 75
    assert min(ports) >= 16384
    assert max(ports) < 32768
    assert find_place(None, None, None, 99, "one").port == 99


def test_launchers_started_by_hand_in_different_steps_of_an_allocation_meet(monkeypatch):
    places = []
    for step in ("0", "1"):
        for name, value in (STEP | {"SLURM_STEP_ID": step, "SLURM_STEP_NUM_NODES": "1"}).items():
            monkeypatch.setenv(name, value)
        places.append(find_place(2, int(step), "gpu03", None, "run"))
    assert (places[0].port, places[0].launch) == (places[1].port, places[1].launch)


@pytest.mark.parametrize("port", [0, -1, 65535, 70000])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(ConfigError, match=f"--port: found {port}; allowed: 1 to 65534"):
        find_place(2, 0, "host", port, "run")


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        (STEP | {"SLURM_STEP_NUM_TASKS": "32"}, (None, None, None), "srun started 32 launchers on 4 nodes"),
        ({}, (2, 1, None), "--main-address"),
        ({}, (2, None, "host"), "--node-rank"),
        ({}, (2, 2, "host"), "allowed: 0 to 1"),
    ],
)
def test_a_place_that_is_not_clear_is_refused(monkeypatch, environment, options, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        find_place(*options, None, "run")


@pytest.mark.parametrize(
    ("names", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("n[1-4]", "n1"), ("a[007-9,12],b", "a007"), ("r[1-2]n[03-4],x", "r1n03")],
)
def test_the_first_host_of_slurms_lists(names, first):
    assert first_host(names) == first


def meet(tmp_path, *others, report=dict, wrong=lambda reports: [[]] * len(reports), stores=None, place=None):
    """Run a leader in this thread and joiners in others; the leader's error, if any, and the others' exits."""
    count = 1 + len(others)
    port = place or free_port()
    exits, threads = {}, []

    def follow(rank, launch):
        try:
            store = (stores or {}).get(rank, tmp_path / "store")
            at = Place(count, rank, ("127.0.0.1",), port, launch)
            with join(at, store, lambda: {"host": f"h{rank}"}, Never()) as peers:
                await_word(peers, Never(), "go")
                exits[rank] = leave(peers, Never())
        except (NodesError, SystemExit) as error:
            exits[rank] = error

    for rank, launch in others:
        threads.append(threading.Thread(target=follow, args=(rank, launch)))
        threads[-1].start()
    error = None
    try:
        with lead(
            Place(count, 0, (), port, "job"), tmp_path / "store", lambda: {"host": "h0"}, wrong, Never()
        ) as peers:
            for link in peers.links.values():
                link.send(kind="go")
    except NodesError as raised:
        error = raised
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return error, exits


def free_port():
    with socket.create_server(("", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(nodes, "ARRIVAL", 3.0)
    monkeypatch.setattr(nodes, "PARTING", 0.5)
    monkeypatch.setattr(nodes, "APPEARANCE", 1.0)


def test_launchers_that_meet_end_as_the_first_does(tmp_path, quick):
    error, exits = meet(tmp_path, (1, "job"), (2, "job"))
    assert error is None
    assert exits == {1: 0, 2: 0}
    assert not list((tmp_path / "store").iterdir())


def test_a_node_that_does_not_come_is_named(tmp_path, quick):
    error, exits = meet(tmp_path, (2, "job"), (3, "job"))
    # three nodes are expected and node 1 is not there; node 3 is none of them
    assert "of 3 nodes, 1 did not come" in str(error)
    assert isinstance(exits[3], NodesError)


def test_a_launcher_of_another_job_is_sent_away(tmp_path, quick):
    error, exits = meet(tmp_path, (1, "other job"))
    assert "did not come" in str(error)
    assert "another training listens there" in str(exits[1])


def test_faults_end_all_nodes_and_name_the_one_that_has_them(tmp_path, quick):
    error, exits = meet(tmp_path, (1, "job"), (2, "job"), wrong=lambda reports: [[], [], ["has no GPU"]])
    assert "not all nodes are fit: node 2 of 3 (h2): has no GPU" in str(error)
    assert exits == {1: 1, 2: 1}


def test_a_node_that_cannot_read_the_stores_secret_is_known(tmp_path, quick):
    seen = []

    def wrong(reports):
        seen.extend(report.get("sees_store", True) for report in reports)
        return [[]] * len(reports)

    meet(tmp_path, (1, "job"), (2, "job"), wrong=wrong, stores={2: tmp_path / "elsewhere"})
    assert seen == [True, True, False]


def test_a_port_in_use_is_told_with_the_cure(tmp_path, quick):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(NodesError, match=rf"port {port} of .* cannot be used .*another --port"),
            lead(Place(2, 0, (), port), tmp_path, dict, lambda reports: [[], []], Never()),
        ):
            pass


def test_a_stranger_on_the_port_changes_nothing(tmp_path, quick):
    port = free_port()

    def knock():
        for content in (b"GET / HTTP/1.1\r\n\r\n", b'{"kind": "hello", "node": 1}\n', b"[1]\n"):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                    stranger.sendall(content)
            except OSError:
                pass

    thread = threading.Thread(target=knock)
    thread.start()
    error, exits = meet(tmp_path, (1, "job"), place=port)
    thread.join()
    assert error is None
    assert exits == {1: 0}


def test_a_silent_connection_and_a_report_without_its_fields_keep_nobody_waiting(tmp_path, quick):
    port, silent = free_port(), []

    def linger():
        for content in (b"", b'{"kind": "hello", "node": 1, "launch": "job"}\n'):
            silent.append(socket.create_connection(("127.0.0.1", port), timeout=1))
            silent[-1].sendall(content)

    original = nodes._listening

    @contextlib.contextmanager
    def listening(place):
        with original(place) as listener:
            linger()  # before anyone else
            yield listener

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "_listening", listening)
        error, exits = meet(tmp_path, (1, "job"), place=port)
    for connection in silent:
        connection.close()
    assert error is None
    assert exits == {1: 0}


def test_a_secret_that_appears_late_is_waited_for(tmp_path, quick):
    timer = threading.Timer(0.5, (tmp_path / "secret").write_text, ["word"])
    timer.start()
    assert nodes._read(tmp_path / "secret") == "word"
    timer.join()


def test_what_arrives_together_is_waited_for_one_by_one():
    one, other = (Link(end) for end in socket.socketpair())
    one.send(kind="a")
    one.send(kind="b")
    one.send(kind="c")
    one.close()
    assert [other.wait(1)["kind"], other.wait(1)["kind"]] == ["a", "b"]
    assert [message["kind"] for message in other.receive()] == ["c"]
    assert other.wait(1) is None


def test_a_link_gives_whole_messages_and_notices_the_end():
    one, other = (Link(end) for end in socket.socketpair())
    one.send(kind="a", value=1)
    one.send(kind="b")
    assert other.receive() == [{"kind": "a", "value": 1}, {"kind": "b"}]
    assert other.receive() == []
    one.socket.sendall(b'{"kind": ')
    assert other.receive() == []
    one.socket.sendall(b'"c"}\n')
    assert other.receive() == [{"kind": "c"}]
    one.close()
    assert other.open
    assert other.receive() == []
    assert not other.open


def test_a_launcher_that_ends_without_a_word_is_the_cause_of_all_failures():
    one, other = (Link(end) for end in socket.socketpair())
    peers = Peers(Place(2, 0), {1: one}, {0: "a", 1: "b"})
    peers.failures.append((-9, "rank 0 was killed"))
    assert peers.busy
    other.close()
    peers.poll()
    assert not peers.busy
    assert min(peers.failures)[1] == "node 1 of 2 (b) is gone: its launcher ended without a word"


def test_another_number_of_launchers_than_nodes_is_refused():
    run = config_for("kl-cov").model_copy(update={"compute": Compute(ranks=4, nodes=2)})
    train._check_nodes(run, Place(2))
    with pytest.raises(ConfigError, match=r"compute\.nodes is 2 and 1 launchers were started"):
        train._check_nodes(run, Place())


def test_nodes_divide_ranks_and_engines_stay_within_a_node():
    Compute(device="cuda", ranks=32, nodes=4, engine="vllm", tensor_parallel=8)
    with pytest.raises(ValueError, match="divisors of ranks"):
        Compute(ranks=8, nodes=3)
    with pytest.raises(ValueError, match="divisors of the 4 ranks of a node"):
        Compute(device="cuda", ranks=8, nodes=2, engine="vllm", tensor_parallel=8)


def invalid_inputs(tmp_path):
    """Arguments of a training whose configuration cannot be read."""
    (tmp_path / "run.yaml").write_text("run: [")
    return [tmp_path / name for name in ("run.yaml", "m.json", "t.parquet", "v.parquet", "s", "me.parquet", "o")]


def test_a_node_with_invalid_inputs_looks_for_the_first_for_a_minute_only(tmp_path, monkeypatch):
    """Where node 0 finds the same, it never listens."""
    monkeypatch.setattr(nodes, "TELLING", 0.2)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"run\.yaml:1: not valid YAML"):
        train.train(*invalid_inputs(tmp_path), tmp_path, nodes=2, node_rank=1, main_address="127.0.0.1", port=1)
    assert time.monotonic() - began < 10


def test_a_node_with_invalid_inputs_tells_the_first(tmp_path):
    """Node 0, whose inputs are in order, neither waits for it nor guesses."""
    port, ends = free_port(), []

    def other():
        with contextlib.suppress(NodesError):
            at = Place(2, 1, ("127.0.0.1",), port, "job")
            with join(at, tmp_path, lambda: {"host": "h1"}, Never(), ValueError("m.json is damaged")) as peers:
                ends.append(leave(peers, Never()))

    thread = threading.Thread(target=other)
    thread.start()
    reports = []
    with (
        pytest.raises(NodesError, match="not all nodes are fit"),
        lead(
            Place(2, 0, (), port, "job"),
            tmp_path,
            lambda: {"host": "h0"},
            lambda found: reports.extend(found) or [[], ["damaged"]],
            Never(),
        ),
    ):
        pytest.fail("started")  # fmt: skip
    thread.join(30)
    assert ends == [1]
    assert reports[1]["invalid"] == "m.json is damaged"


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(train.fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"lock cannot be locked .*-o flock"), train._alone(tmp_path, "run", Never()):
        pass
