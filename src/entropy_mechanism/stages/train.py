"""Run configuration, base model and data -> metrics and final policy.

Training state lives in `store/<fingerprint>/`, outside the declared outputs, so a retry resumes and an unchanged
run is a hit whatever experiment asks for it. The fingerprint covers all that determines the result.

This module is what surrounds a training: the lock, the finished run, the marker of a permanent error. It imports
nothing heavy, so that a signal during the imports of `training` is noticed, and a retry in vain ends quickly.
"""

import errno
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from entropy_mechanism import files, memory, tracking
from entropy_mechanism.config import ConfigError, RunConfig, read_run_config
from entropy_mechanism.models import manifest
from entropy_mechanism.paths import GAVE_UP
from entropy_mechanism.rl.errors import PermanentError
from entropy_mechanism.stages import health, shared
from entropy_mechanism.stages.launch import UnfitError, follow_launcher, launch, meeting_port
from entropy_mechanism.stages.nodes import await_word, find_place, join, lead, leave
from entropy_mechanism.stages.peers import Peers, Place
from entropy_mechanism.stages.stopping import UNFIT, StopRequest, tell

TRAINING_VERSION = 6
"""Raised by hand whenever a change of code changes what training produces."""
LOCK_PATIENCE = 600.0
"""Seconds to wait for another trainer of the same run."""
PERMANENT = (PermanentError, ConfigError, ValueError)
"""Errors that would come again: the run, or one of its inputs, is not what it should be."""
TRANSIENT = (OSError, MemoryError)
"""Errors of the machine; whatever they caused is not permanent either."""


class InVainError(ChildProcessError):
    """Ranks failed as they would again; `failed.json` says how."""


def train(
    config: Path,
    model: Path,
    train_set: Path,
    validation: Path,
    store: Path,
    metrics: Path,
    output: Path,
    results: Path,
    shared_store: Path | None = None,
    deadline_seconds: float | None = None,
    retry: bool = False,
    nodes: int | None = None,
    node_rank: int | None = None,
    main_address: str | None = None,
    port: int | None = None,
) -> int:
    """Train one run, or take it from a store; the last four say which of several nodes this is.

    Exits with 75, after a checkpoint, when stopped by a signal or before the process is `deadline_seconds` old.
    Raises `PermanentError` at once when an earlier attempt left `failed.json`, unless `retry` clears it.
    """
    stop = StopRequest(deadline_seconds)
    place = find_place(nodes, node_rank, main_address, port, str(output))
    inputs = {"config": config, "model": model, "train_set": train_set, "validation": validation}
    if place.rank:
        return _help(place, inputs, store, stop)
    with _giving_up(output.with_name(GAVE_UP)):
        # What fails here fails before node 0 listens, on it as on the others.
        run, fingerprint = _identify(inputs, place)
        folder = store / fingerprint
        params = run.model_dump(mode="json") | {"fingerprint": fingerprint, "training_version": TRAINING_VERSION}
        report = partial(health.report, inputs, store)
        faults = partial(health.faults, run=run, inputs=inputs, store=store)
        with (
            lead(place, store, report, faults, stop) as peers,
            tracking.stage(
                "train",
                run.run,
                results=results,
                params=params,
                inputs=list(inputs.values()),
                outputs=[metrics, output],
                metrics_file=folder / "metrics.jsonl",
            ) as record,
        ):
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder, run.run, stop) as lock:
                if source := _found(folder, shared_store, fingerprint):
                    tell(f"{run.run}: found in {source}, nothing to train")
                else:
                    _heed_failure(folder, retry)
                    with _marking_failure(folder):
                        stop.leave_if_asked(run.run)
                        _train_here(run, fingerprint, inputs, folder, stop, lock, peers)
                # What stands in the store belongs to the execution that brought it there; others find it.
                for part, digests in _final_state(folder).items():
                    (record.found if source == folder else record.artifact)(part, digests)
                _write_outputs(run, fingerprint, folder, metrics, output)
                if shared_run := shared.origin(folder):
                    record.param("taken_from", shared_run)
                else:
                    parts = {name: folder / name for name in shared.RUN}
                    shared.publish(shared_store, fingerprint, parts, record.provenance)
    return 0


def _identify(inputs: Mapping[str, Path], place: Place) -> tuple[RunConfig, str]:
    """The run and its fingerprint. Raises what is wrong with its inputs, or with the number of launchers."""
    run = read_run_config(inputs["config"])
    _check_nodes(run, place)
    return run, training_fingerprint(run, inputs["model"], inputs["train_set"], inputs["validation"])


def _train_here(
    run: RunConfig,
    fingerprint: str,
    inputs: Mapping[str, Path],
    folder: Path,
    stop: StopRequest,
    lock: int,
    peers: Peers,
) -> None:
    """Train in this process, or start the ranks of this node, let the others start theirs, and wait for all."""
    if run.compute.ranks == 1:
        from entropy_mechanism.stages.training import train_run

        stop.leave_if_asked(run.run)  # the import takes seconds
        train_run(run, fingerprint, inputs["model"], inputs["train_set"], inputs["validation"], folder, stop)
        return
    ranks, meeting = run.compute.ranks, meeting_port(peers.place)
    peers.say("go", fingerprint=fingerprint, ranks=ranks, port=meeting)
    try:
        launch(_rank(inputs, fingerprint, folder, stop), ranks, stop, lock, peers, meeting)
    except ChildProcessError as error:
        if (folder / "failed.json").is_file():  # a rank left it
            raise InVainError(*error.args) from error
        raise


def _help(place: Place, inputs: Mapping[str, Path], store: Path, stop: StopRequest) -> int:
    """On another node than the first: start its ranks when node 0 says so, and end with its exit status."""
    invalid: Exception | None = None
    try:
        _identify(inputs, place)
    except OSError:  # a digest tells node 0 what this one does not see
        pass
    except PERMANENT as error:
        invalid = error
    with join(place, store, partial(health.report, inputs, store), stop, invalid) as peers:
        if word := await_word(peers, stop, "go"):
            command = _rank(inputs, word["fingerprint"], store / word["fingerprint"], stop)
            with suppress(SystemExit, ChildProcessError):  # node 0 knows, and has the last word
                launch(command, word["ranks"], stop, -1, peers, word["port"])
        return leave(peers, stop)


def _rank(inputs: Mapping[str, Path], fingerprint: str, folder: Path, stop: StopRequest) -> list[str]:
    """The command of a rank."""
    options: dict[str, object] = {f"--{name.replace('_', '-')}": path for name, path in inputs.items()}
    options |= {"--fingerprint": fingerprint, "--folder": folder}
    if stop.deadline is not None:
        options["--deadline-seconds"] = stop.left()
    return ["train-rank", *(str(part) for pair in options.items() for part in pair)]


def _check_nodes(run: RunConfig, place: Place) -> None:
    """Raise ConfigError when other launchers were started than the run is to have."""
    wanted = run.compute.nodes
    if place.count != wanted:
        cure = f"srun --nodes={wanted} --ntasks={wanted} --ntasks-per-node=1 entropy-mechanism train …"
        raise ConfigError(
            f"{run.run}: compute.nodes is {wanted} and {place.count} launchers were started, one a node; start "
            f"{wanted} ({cure if wanted > 1 else '--nodes 1'}; docs/hpc.md), or change compute.nodes"
        )


def train_rank(
    config: Path,
    fingerprint: str,
    model: Path,
    train_set: Path,
    validation: Path,
    folder: Path,
    results: Path,
    deadline_seconds: float | None = None,
) -> None:
    """What each rank does of a training that `train` has started on several.

    A rank that was asked to stop does not leave before it has met the others, which would wait for it: the loop
    asks all of them at once.
    """
    follow_launcher()
    try:
        with _marking_failure(folder):
            stop = StopRequest(deadline_seconds, supervised=True)
            from entropy_mechanism.stages.training import train_run

            train_run(read_run_config(config), fingerprint, model, train_set, validation, folder, stop)
    except memory.DoesNotFit as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(UNFIT) from error


def training_fingerprint(run: RunConfig, model: Path, train_set: Path, validation: Path) -> str:
    """What determines the result of a run, in sixteen digits: settings, inputs and the training code's version."""
    return files.fingerprint(
        {
            "version": TRAINING_VERSION,
            "science": run.science,
            "model": manifest.read(model).identity,
            "train_set": files.sha256(train_set),
            "validation": files.sha256(validation),
        }
    )


def permanent(error: BaseException) -> bool:
    """Whether another attempt would fail the same way; see `PERMANENT` and `TRANSIENT`."""
    if not isinstance(error, PERMANENT):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TRANSIENT):
            return False
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return True


def _found(folder: Path, shared_store: Path | None, fingerprint: str) -> Path | None:
    """Where the finished run stands: in its folder, or in the shared store, to which that then links."""
    if _finished(folder):
        return folder
    _tidy(folder)
    return shared.take(folder, shared_store, fingerprint)


def _finished(folder: Path) -> bool:
    """Whether the store holds the finished run, undamaged."""
    try:
        done = files.read_json(folder / "done.json")
        found: dict[str, Any] = {"digests": files.sha256_of_tree(folder / "final")}
        if "series" in done:
            found["series"] = files.sha256(folder / "metrics.jsonl")
        damaged = [name for name, value in found.items() if done[name] != value]
    except FileNotFoundError as error:
        if error.filename == str(folder / "done.json"):
            return False
        damaged = [str(error)]
    except (ValueError, KeyError, TypeError) as error:
        damaged = [f"done.json: {error}"]
    if damaged:
        what = f"{folder} is not as it was left when the run was finished ({', '.join(damaged)})"
        tell(what if shared.origin(folder) else f"{what}; going on with it")
    return not damaged


def _final_state(folder: Path) -> dict[Path, dict[str, str] | None]:
    """What a finished run leaves in the store for others, with digests where `done.json` holds them."""
    parts = {folder / "final": files.read_json(folder / "done.json")["digests"]}
    parts |= dict.fromkeys([folder / "done.json", folder / "metrics.jsonl", folder / "tokens"])
    return {part: digests for part, digests in parts.items() if part.exists()}


def _write_outputs(run: RunConfig, fingerprint: str, folder: Path, metrics: Path, output: Path) -> None:
    import pandas as pd

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files.write_parquet(metrics, pd.DataFrame(rows).drop(columns="time"))
    facts = {"run": run.run, "fingerprint": fingerprint, **files.read_json(folder / "done.json")["facts"]}
    manifest.write(output, folder / "final", facts)


def _heed_failure(folder: Path, retry: bool) -> None:
    """Raise what stopped an earlier attempt for good; forget it on `retry`."""
    marker = folder / "failed.json"
    if retry:
        marker.unlink(missing_ok=True)
    if not marker.is_file():
        return
    try:
        failed = files.read_json(marker)
        message, origin = failed["error"], f"{failed['time']} on {failed['host']}"
    except (ValueError, KeyError, TypeError):
        message, origin = "an earlier attempt failed, its message is lost", "an unknown time"
    raise PermanentError(
        f"{message} (failed so at {origin}, not tried again; when the reason is gone, delete {marker} or run "
        "the command with --retry)"
    )


@contextmanager
def _giving_up(marker: Path) -> Iterator[None]:
    """Leave a marker for the workflow, which knows no fingerprint, when another attempt would be in vain.

    It counts for the invocation that it names, so that a later one tries again.
    """
    marker.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if permanent(error) or isinstance(error, memory.DoesNotFit | UnfitError | InVainError):
            try:
                files.write_json(
                    marker, {"invocation": os.environ.get(tracking.INVOCATION_VARIABLE), "error": str(error)}
                )
            except OSError as problem:
                tell(f"warning: {marker} could not be written: {problem}")
        raise


@contextmanager
def _marking_failure(folder: Path) -> Iterator[None]:
    """Leave `failed.json` when the body ends with a permanent error."""
    try:
        yield
    except Exception as error:
        if permanent(error):
            failed = {
                "error": str(error) or type(error).__name__,
                "type": type(error).__name__,
                "time": tracking.now(),
                "host": os.uname().nodename,
            }
            try:
                files.write_json(folder / "failed.json", failed)
                tell(f"left {folder / 'failed.json'}: this error would come again, so there are no more attempts")
            except OSError as problem:
                tell(f"warning: {folder / 'failed.json'} could not be written: {problem}")
        raise


def _tidy(folder: Path) -> None:
    """Remove what processes that were killed had begun to write. Only the owner of the lock may."""
    for path in folder.glob(".*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith(".nfs"):  # a network file system's own, gone when nobody has it open
            path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path, name: str, stop: StopRequest) -> Iterator[int]:
    """Exclude other trainers of the same run; wait a while for one that is at work, then give up.

    Yields the lock's descriptor. The lock ends with the last process that has it, whichever way that ends.
    """
    with (folder / "lock").open("a+") as handle:
        deadline = time.monotonic() + LOCK_PATIENCE
        waiting = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{folder} is in use by another trainer ({owner}); wait for it or end it"
                    ) from None
                if not waiting:
                    tell(f"{name}: another trainer ({owner}) is at work on this run; waiting for it")
                waiting = True
                stop.leave_if_asked(name)
                time.sleep(0.2)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
                raise OSError(
                    error.errno,
                    f"{handle.name} cannot be locked ({error.strerror}), and without a lock two trainings of one "
                    "run could meet; put `results` on a file system with flock (Lustre: mounted with -o flock)",
                ) from error
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} on {os.uname().nodename}")
        handle.flush()
        yield handle.fileno()
