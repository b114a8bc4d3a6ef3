"""Trainers to be killed: forked from a process that has imported everything, so that each starts at once.

Run as a program, this is that process. It reads one request a line from its standard input and answers with the
process id of the trainer when it was started, then with its exit status (minus the signal that killed it).
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

REPOSITORY = Path(__file__).parents[2]
RUN = "nano--train--grpo--s1"
STEPS = 40
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


@dataclass(frozen=True)
class AtEvent:
    """Right before the `count`-th audit event of this name whose paths match `pattern`."""

    event: str
    pattern: str
    count: int = 1


@dataclass(frozen=True)
class AfterRow:
    """Some seconds after the series has so many rows; after the start, for none."""

    rows: int
    seconds: float = 0.0


def signal_at(moment: AtEvent | AfterRow, number: int) -> None:
    """Let this process send itself a signal at a moment; another one, on a busy machine, may come too late."""

    def send() -> None:
        os.kill(os.getpid(), number)

    if isinstance(moment, AtEvent):
        _watch_events(moment, send)
    elif moment.rows:
        _watch_rows(moment, send)
    else:
        _call_in(moment.seconds, send)


def _watch_events(moment: AtEvent, send: Callable[[], None]) -> None:
    left = moment.count

    def watch(name: str, arguments: tuple) -> None:
        nonlocal left
        if name == moment.event and re.search(moment.pattern, " ".join(map(str, arguments))):
            left -= 1
            if left == 0:
                send()

    sys.addaudithook(watch)


def _watch_rows(moment: AfterRow, send: Callable[[], None]) -> None:
    from entropy_mechanism import files

    append, due = files.append_line, True

    def append_and_look(handle: BinaryIO, line: bytes) -> None:
        nonlocal due
        append(handle, line)
        path = Path(handle.name)
        if due and path.name == "metrics.jsonl" and path.read_bytes().count(b"\n") >= moment.rows:
            due = False
            _call_in(moment.seconds, send)

    files.append_line = append_and_look


def _call_in(seconds: float, send: Callable[[], None]) -> None:
    if not seconds:
        send()
        return
    timer = threading.Timer(seconds, send)
    timer.daemon = True
    timer.start()


class Trainers:
    """One warm process, its experiment of 40 quick steps, and the trainers it forks."""

    def __init__(self, root: Path) -> None:
        """Prepare data, base model and settings of one run below `root`."""
        self.root = root
        self.log = root / "log.txt"
        self.pid: int | None = None
        environment = {name: value for name, value in os.environ.items() if "ENTROPY_MECHANISM" not in name}
        self.environment = environment | {
            "PYTHONPATH": str(REPOSITORY / "src"),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            cwd=root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        experiment = root / "quick.yaml"
        experiment.write_text(_experiment())
        for name in ("train", "validation", "easy"):
            output = ("--output", f"{name}.parquet", "--statistics", f"{name}.json")
            self.finish("prepare", "--experiment", experiment, "--data", name, *output)
        model = ("--model", "nano", "--output", "model/manifest.json")
        self.finish("make-model", "--experiment", experiment, *model)
        self.finish("resolve", "--experiment", experiment, "--run", RUN, "--output", "run.yaml")

    def close(self) -> None:
        """End the warm process."""
        self.server.stdin.close()
        self.server.wait()

    def command(self, name: str, *options: object) -> list[str]:
        """Arguments that train the run with a store and outputs in the folder `name`."""
        inputs = "train --config run.yaml --model model/manifest.json --train-set train.parquet"
        inputs += f" --validation validation.parquet --store {name}/store --metrics {name}/metrics.parquet"
        return [*f"{inputs} --output {name}/manifest.json --results {name}".split(), *map(str, options)]

    def store(self, name: str) -> Path:
        """The store folder of the run, once there is one."""
        (folder,) = (self.root / name / "store").iterdir()
        return folder

    def rows(self, name: str) -> int:
        """Rows in the series of the run; none before it has begun."""
        return sum(path.read_bytes().count(b"\n") for path in self.root.glob(f"{name}/store/*/metrics.jsonl"))

    def start(
        self,
        *arguments: object,
        at: AtEvent | AfterRow | None = None,
        number: int = signal.SIGKILL,
        umask: int = 0o022,
    ) -> int:
        """Fork one process, with a signal at a moment; returns its id.

        `wait` has to follow, or the next start ends the process.
        """
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        request = {"arguments": list(map(str, arguments)), "log": str(self.log)}
        request["umask"] = umask
        request["moment"] = [type(at).__name__, asdict(at), number] if at else None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        self.pid = int(self.server.stdout.readline())
        return self.pid

    def wait(self) -> int:
        """Exit status of the process that was started last."""
        self.pid = None
        return int(self.server.stdout.readline())

    def finish(self, *arguments: object, status: int = 0, umask: int = 0o022) -> None:
        """Run one command; its exit status has to be `status`."""
        self.start(*arguments, umask=umask)
        found = self.wait()
        assert found == status, f"exit status {found}, expected {status}\n{self.text()[-3000:]}"

    def kill(self, name: str, moment: AtEvent | AfterRow, *options: object) -> int:
        """Train and kill at the moment; returns the exit status, -9 when the moment came."""
        self.start(*self.command(name, *options), at=moment)
        return self.wait()

    def text(self) -> str:
        """What all processes printed."""
        return self.log.read_text()

    def result(self, name: str) -> tuple[object, dict, dict]:
        """Metrics without times, digests of the final weights, and the run's facts without times."""
        import pandas as pd

        frame = pd.read_parquet(self.root / name / "metrics.parquet")
        frame = frame.drop(columns=[column for column in frame if column.startswith(("time/", "throughput/"))])
        manifest = json.loads((self.root / name / "manifest.json").read_text())
        digests = manifest.pop("digests")
        return frame, digests, {key: value for key, value in manifest.items() if key not in ("seconds", "weights")}

    def assert_alike(self, name: str, other: str) -> None:
        """Both runs ended with the same bits, and nothing half-written was left in the store."""
        import pandas as pd

        one, two = self.result(name), self.result(other)
        pd.testing.assert_frame_equal(one[0], two[0], check_exact=True)
        assert one[1:] == two[1:]
        left = [path.name for path in self.store(name).rglob(".*")]
        assert not left, left


def random_moment(generator: random.Random, seconds: float) -> AtEvent | AfterRow:
    """A moment drawn evenly over file operations, or over the `seconds` that an attempt may take."""
    if generator.random() < 0.5:
        return AfterRow(0, generator.uniform(0, seconds))
    event = generator.choice(EVENTS)
    return AtEvent(event, "store|metrics|manifest|final|state|complete", generator.randint(1, 30))


def _experiment() -> str:
    """The smoke experiment with more and quicker steps."""
    import yaml

    experiment = yaml.safe_load((REPOSITORY / "config/experiments/smoke.yaml").read_text())
    experiment["data"]["validation"]["problems"] = 10
    experiment["training"] |= {"steps": STEPS, "prompts": 4, "validate_every": 4, "checkpoint_every": 3}
    experiment["training"] |= {"max_response": 12}
    return yaml.safe_dump(experiment)


def wait_until_stopped(pid: int) -> None:
    """Until a process has had SIGSTOP; it must not end before."""
    end, state = time.monotonic() + 60, ""
    while state != "T":
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state != "Z", "the process has ended"
        assert time.monotonic() < end, "the process was not stopped"
        time.sleep(0.001)


def _serve() -> None:
    import torch
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    import entropy_mechanism.cli
    import entropy_mechanism.data.arithmetic
    import entropy_mechanism.stages.make_model
    import entropy_mechanism.stages.prepare
    import entropy_mechanism.stages.resolve
    import entropy_mechanism.stages.train
    import entropy_mechanism.stages.training  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _work(**request)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _work(arguments: list[str], log: str, umask: int, moment: tuple[str, dict, int] | None) -> None:
    from entropy_mechanism import cli

    os.umask(umask)
    for descriptor, path, mode in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY)):
        os.dup2(os.open(path, mode | os.O_CREAT | os.O_APPEND), descriptor)
    os.dup2(1, 2)
    if moment:
        kind, place, number = moment
        signal_at({"AtEvent": AtEvent, "AfterRow": AfterRow}[kind](**place), number)
    status = 1
    try:
        cli.main(arguments)
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
