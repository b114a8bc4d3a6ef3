"""Run configuration, base model and data -> metrics and final policy.

Training state lives in `store/<fingerprint>/`, outside the declared outputs, so a retry resumes and an unchanged
run is a hit whatever experiment asks for it. The fingerprint covers all that determines the result.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from entropy_mechanism import files, tracking
from entropy_mechanism.config import RunConfig, read_run_config
from entropy_mechanism.models import manifest
from entropy_mechanism.models.load import load_policy, load_tokenizer, save_policy
from entropy_mechanism.rl.loop import Hooks, Stopped, Trainer
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
from entropy_mechanism.stages.runtime import StopRequest, grader, questions, use_one_thread

TRAINING_VERSION = 1
"""Raised by hand whenever a change of code changes what training produces."""
INTERRUPTED = 75
"""Exit status of a run that stopped in time and goes on when started again."""
LOCK_PATIENCE = 600.0
"""Seconds to wait for another trainer of the same run."""


def train(
    config: Path,
    model: Path,
    train_set: Path,
    validation: Path,
    store: Path,
    metrics: Path,
    output: Path,
    results: Path,
) -> None:
    """Train one run, or take it from the store; exits with 75 when stopped by a signal."""
    stop = StopRequest()
    use_one_thread()
    run = read_run_config(config)
    fingerprint = training_fingerprint(run, model, train_set, validation)
    folder = store / fingerprint
    params = run.model_dump(mode="json") | {"fingerprint": fingerprint, "training_version": TRAINING_VERSION}
    with tracking.stage(
        "train",
        run.run,
        results=results,
        params=params,
        inputs=[config, model, train_set, validation],
        outputs=[metrics, output],
        metrics_file=folder / "metrics.jsonl",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if _finished(folder):
                print(f"{run.run}: found in {folder}, nothing to train", flush=True)
            else:
                _train(run, model, train_set, validation, folder, stop)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        files.write_parquet(metrics, pd.DataFrame(rows).drop(columns="time"))
        facts = {"run": run.run, "fingerprint": fingerprint, **files.read_json(folder / "done.json")["facts"]}
        manifest.write(output, folder / "final", facts)


def training_fingerprint(run: RunConfig, model: Path, train_set: Path, validation: Path) -> str:
    """What determines the result of a run, in sixteen digits: settings, inputs and the training code's version."""
    return files.fingerprint(
        {
            "version": TRAINING_VERSION,
            "science": run.science,
            "model": manifest.read(model).digests,
            "train_set": files.sha256(train_set),
            "validation": files.sha256(validation),
        }
    )


def _train(
    run: RunConfig, model: Path, train_set: Path, validation: Path, folder: Path, stop: StopRequest
) -> None:
    base = manifest.read(model)
    base.verify()
    policy = load_policy(base.weights)
    tokenizer = load_tokenizer(base.weights)
    log = MetricsLog(folder / "metrics.jsonl", run)
    trainer = Trainer(
        config=run,
        model=policy,
        engine=TransformersEngine(policy, len(tokenizer)),
        grader=grader(tokenizer),
        questions=questions(train_set, tokenizer),
        validation=questions(validation, tokenizer),
        stop_ids=(tokenizer.eos_token_id,),
        checkpoints=folder / "checkpoints",
        hooks=Hooks(row=log.row, stop=stop, warn=log.say),
    )
    step = trainer.resume()
    log.start(step)
    try:
        trainer.train()
    except Stopped as reason:
        log.say(f"{reason}; start again to go on")
        raise SystemExit(INTERRUPTED) from reason
    finally:
        log.close()
    save_policy(policy, tokenizer, folder / "final")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    facts = {
        "steps": rows[-1]["step"],
        "gradient_steps": rows[-1]["gradient_steps"],
        "seconds": round(sum(row["time/step"] for row in rows), 3),
        "parameters": base.facts["parameters"],
        "non_embedding_parameters": base.facts["non_embedding_parameters"],
    }
    files.write_json(folder / "done.json", {"facts": facts, "digests": files.sha256_of_tree(folder / "final")})
    log.say(f"finished: validation accuracy {rows[-1]['validation/accuracy']:.3f}")


def _finished(folder: Path) -> bool:
    """Whether the store holds the finished run, undamaged."""
    if not (folder / "done.json").is_file():
        return False
    return files.read_json(folder / "done.json")["digests"] == files.sha256_of_tree(folder / "final")


class MetricsLog:
    """The run's series on disk, and its progress before a person's eyes."""

    def __init__(self, path: Path, run: RunConfig) -> None:
        """Log the rows of `run` to `path`."""
        self.path, self.name, self.last = path, run.run, run.training.steps
        self.bar: tqdm | None = None
        self.told = -float("inf")
        self.accuracy = float("nan")

    def start(self, step: int) -> None:
        """Go on at `step`: rows from there on belong to work that is done again, so they go."""
        rows = self.path.read_text().splitlines(keepends=True) if self.path.is_file() else []
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] < step]
        files.write_text(self.path, "".join(kept))
        self.handle = self.path.open("a", encoding="utf-8")
        self.began, self.first = time.monotonic(), step
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.last, initial=step, desc=self.name, unit="step")
        self.say(f"going on from step {step} of {self.last}" if step else f"training {self.last} steps")

    def row(self, row: dict[str, Any]) -> None:
        """Append one finished step."""
        clean = {name: None if value != value else value for name, value in row.items()}  # NaN is not JSON
        self.handle.write(json.dumps(clean | {"time": time.time()}) + "\n")
        self.handle.flush()
        if row["validation/accuracy"] is not None:
            self.accuracy = row["validation/accuracy"]
        text = f"entropy {row['entropy/sequence_mean/before_filter']:.3f}, reward {row['reward/mean']:.3f}"
        text += f", validation {self.accuracy:.3f}"
        step = row["step"]
        if self.bar is not None:
            self.bar.n = step
            self.bar.set_postfix_str(text)
        elif time.monotonic() - self.told > 10 or step == self.last:
            self.told = time.monotonic()
            pace = (self.told - self.began) / max(1, step - self.first + 1)
            left = (self.last - step) * pace
            self.say(f"step {step}/{self.last}: {text}; {pace:.2f} s a step, {left:.0f} s left")

    def say(self, message: str) -> None:
        """One line for a person."""
        if self.bar is not None:
            self.bar.write(f"{self.name}: {message}")
        else:
            print(f"{self.name}: {message}", flush=True)

    def close(self) -> None:
        """Make the series durable."""
        os.fsync(self.handle.fileno())
        self.handle.close()
        if self.bar is not None:
            self.bar.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Exclude other trainers of the same run; wait a while for one that is at work, then give up."""
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
                    raise SystemExit(
                        f"{folder} is in use by another trainer ({owner}); wait for it or end it"
                    ) from None
                if not waiting:
                    print(f"another trainer ({owner}) is at work on this run; waiting for it", flush=True)
                waiting = True
                time.sleep(1)
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} on {os.uname().nodename}")
        handle.flush()
        yield
