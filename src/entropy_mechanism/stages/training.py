"""The training of one run inside its folder of the store: load, resume, train, keep the final policy."""

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from entropy_mechanism import files, memory
from entropy_mechanism.config import RunConfig
from entropy_mechanism.models import manifest
from entropy_mechanism.models.load import load_policy, load_tokenizer, save_policy
from entropy_mechanism.rewards.grading import Grader
from entropy_mechanism.rl.checkpoint import sync_folder
from entropy_mechanism.rl.collect import Question
from entropy_mechanism.rl.loop import Hooks, Stopped, Trainer
from entropy_mechanism.rl.policy import recompute_activations
from entropy_mechanism.rl.ranks import Ranks, join
from entropy_mechanism.rollouts.engine import Engine
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
from entropy_mechanism.shapes import from_folder
from entropy_mechanism.stages.runtime import (
    completion_grader,
    compute_on_cpu,
    longest_prompt,
    questions,
    stop_ids,
    vllm_engine,
)
from entropy_mechanism.stages.stopping import INTERRUPTED, StopRequest, tell


def train_run(
    run: RunConfig,
    fingerprint: str,
    model: Path,
    train_set: Path,
    validation: Path,
    folder: Path,
    stop: StopRequest,
) -> None:
    """Train `run` to its end in `folder`, from its newest sound checkpoint; exits with 75 when stopped.

    A kill at any moment costs only the steps since the last checkpoint: rows are durable before the checkpoint
    that covers them, and `done.json` is written when all that it vouches for is.
    """
    if run.compute.device == "cpu":
        compute_on_cpu()
    base = manifest.read(model)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:  # once on each node
        base.verify()
    tokenizer = load_tokenizer(base.weights, base.chat_template)
    log = MetricsLog(folder / "metrics.jsonl", run)

    def row(values: dict[str, float | None]) -> None:
        log.row(values)
        stop.took(values["time/step"] or 0.0, values["time/checkpoint"] or 0.0)

    with join(run.compute) as ranks, Grader(run.training.grader) as grader:
        memory.check(run, from_folder(base.weights), _gpu_bytes(ranks.device))
        asked = questions(train_set, tokenizer, run.prompt)
        validating = questions(validation, tokenizer, run.validation_prompt)
        policy, engine = _policy_and_engine(run, base.weights, ranks, len(tokenizer), [*asked, *validating])
        trainer = Trainer(
            config=run,
            model=policy,
            engine=engine,
            grader=completion_grader(grader, tokenizer),
            questions=asked,
            validation=validating,
            stop_ids=stop_ids(tokenizer, run.training.stop),
            checkpoints=folder / "checkpoints",
            hooks=Hooks(row=row, stop=stop, warn=log.say),
            fingerprint=fingerprint,
            ranks=ranks,
        )
        step = trainer.resume(last_step=len(sound_rows(log.path)))
        if ranks.main:
            log.start(step)
        try:
            trainer.train()
        except Stopped as reason:
            if ranks.main:
                log.say(f"{reason} ({stop.reason or 'another rank was asked to'}); start again to go on")
            raise SystemExit(INTERRUPTED) from reason
        finally:
            log.close()
        version, weights = trainer.result()
    if ranks.main:
        save_policy(policy, tokenizer, folder / "final", weights)
        _finish(folder, log, base, version)


def _policy_and_engine(
    run: RunConfig, weights: Path, ranks: Ranks, vocabulary: int, asked: Sequence[Question]
) -> tuple[PreTrainedModel, Engine]:
    """The policy to train, and what samples from it: vLLM, which starts first and sleeps, or transformers.

    Without sharded weights transformers samples from the policy itself; other engines have a copy of their own.
    """
    compute, dtype = run.compute, run.training.dtype
    vllm: Engine | None = None
    if compute.engine == "vllm":
        longest = longest_prompt(asked) + run.training.max_response
        vllm = vllm_engine(compute, weights, vocabulary, longest, dtype, ranks.size)
        vllm.sleep()
    sharded = ranks.size > 1 and compute.sharding == "full"
    policy = load_policy(weights, attention=compute.attention, empty=sharded and not ranks.main)
    if compute.activation_checkpointing:
        recompute_activations(policy)
    if vllm is not None:
        return policy, vllm
    sampled = load_policy(weights) if compute.sharding == "full" else policy
    sampled.to(ranks.device)  # type: ignore[arg-type]  # transformers' wrapper takes it for a function
    return policy, TransformersEngine(sampled, vocabulary, dtype=dtype)


def _gpu_bytes(device: torch.device) -> float:
    """Memory of a GPU; 0 for the CPU, where nothing is refused."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0.0


def _finish(folder: Path, log: "MetricsLog", base: manifest.Manifest, version: int) -> None:
    """Vouch in `done.json` for the final policy and the series."""
    for path in (folder / "final", folder):
        sync_folder(path)
    rows = [json.loads(line) for line in sound_rows(log.path)]
    facts = {
        "steps": rows[-1]["step"],
        "policy_step": version,
        "gradient_steps": rows[-1]["gradient_steps"],
        "seconds": round(sum(row["time/step"] for row in rows), 3),
        "parameters": base.facts["parameters"],
        "non_embedding_parameters": base.facts["non_embedding_parameters"],
    }
    done = {"digests": files.sha256_of_tree(folder / "final"), "series": files.sha256(log.path)}
    files.write_json(folder / "done.json", {"facts": facts, **done})
    log.say(f"finished: validation accuracy {rows[-1]['validation/accuracy']:.3f}")


def sound_rows(path: Path) -> list[bytes]:
    """The lines of a series up to the first that is torn, damaged or out of turn: one for step 0, 1, 2 …"""
    rows: list[bytes] = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
        try:
            if json.loads(line)["step"] != len(rows):
                break
        except (ValueError, KeyError, TypeError):
            break
        rows.append(line + b"\n")
    return rows


class MetricsLog:
    """The run's series on disk, and its progress before a person's eyes."""

    def __init__(self, path: Path, run: RunConfig) -> None:
        """Log the rows of `run` to `path`."""
        self.path, self.name, self.last = path, run.run, run.training.steps
        self.handle: BinaryIO | None = None
        self.bar: tqdm | None = None
        self.told = -float("inf")
        self.accuracy = float("nan")

    def start(self, step: int) -> None:
        """Go on at `step`: rows from there on belong to work that is done again, so they go."""
        with files.replacing(self.path) as temporary:
            temporary.write_bytes(b"".join(sound_rows(self.path)[:step]))
        self.handle = self.path.open("ab", buffering=0)
        self.began, self.first = time.monotonic(), step
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.last, initial=step, desc=self.name, unit="step")
        self.say(f"going on from step {step} of {self.last}" if step else f"training {self.last} steps")

    def row(self, row: dict[str, Any]) -> None:
        """Append one finished step; it is on disk on return, and so before a checkpoint that covers it."""
        clean = {
            name: None if value is None or not math.isfinite(value) else value for name, value in row.items()
        }  # JSON knows neither NaN nor infinity
        assert self.handle is not None, "rows come after `start`"
        files.append_line(self.handle, json.dumps(clean | {"time": time.time()}).encode() + b"\n")
        os.fsync(self.handle.fileno())
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
            tell(f"{self.name}: {message}")

    def close(self) -> None:
        """No more rows."""
        if self.handle is not None:
            self.handle.close()
        if self.bar is not None:
            self.bar.close()
