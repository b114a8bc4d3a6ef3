"""Whether TRL does the same: both update the same weights on the same samples, and the results are compared.

    python benchmarks/same_work.py

This project samples one rollout and updates; TRL is given the same responses, in the same order, and updates.
Both count the group's standard deviation with TRL's epsilon. Compared are rewards, lengths, and the weights after
the updates: their difference relative to how far the updates moved them.
"""

import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

import measure
import torch
from trainer import Task, make_tiny, run_config, trl_trainer

from entropy_mechanism.models.load import load_policy
from entropy_mechanism.rl.loop import Hooks, Trainer
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine

UPDATES = 4


def weights(policy: torch.nn.Module) -> torch.Tensor:
    """All of them, flat."""
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def compare(model: Path, prompts: int) -> dict[str, float]:
    """One rollout step of both on the same samples."""
    work = {
        "model": str(model),
        "training": {"prompts": prompts, "updates": UPDATES, "steps": 1, "filter_groups": False},
        "advantage": {"epsilon": 1e-4},
    }
    run, task = run_config(work), Task(work)
    policy, rows = load_policy(model), []
    base = weights(policy).clone()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            config=run,
            model=policy,
            engine=TransformersEngine(policy, task.vocabulary),
            grader=task.grade,
            questions=task.questions,
            validation=task.validation[:1],
            stop_ids=task.stop_ids,
            checkpoints=Path(folder) / "checkpoints",
            hooks=Hooks(row=rows.append, stop=lambda: False, warn=print),
        )
        collected = trainer.collector.collect(0, 0)
        trainer.step()
    sampled = collected.first
    asked = [task.questions[index] for index in sampled.questions[:: sampled.group_size]]

    def replay(texts, trl):
        return {
            "prompt_ids": sampled.prompts,
            "completion_ids": sampled.responses,
            "logprobs": sampled.engine_logprobs,
        }

    theirs = load_policy(model)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("trl.trainer.grpo_trainer.shuffle_sequence_dict", lambda batch: batch),
    ):
        other = trl_trainer(run, task, theirs, asked, folder, defaultdict(list), [], rollout_func=replay)
        other.train()
    task.close()
    logged = next(entry for entry in other.state.log_history if "reward" in entry)
    moved, apart = weights(policy) - base, weights(policy) - weights(theirs)
    return {
        "reward": float(rows[0]["reward/mean"]),
        "reward_trl": logged["reward"],
        "response_tokens": float(rows[0]["length/mean"]),
        "response_tokens_trl": logged["completions/mean_length"],
        "loss": float(rows[0]["policy/loss"]),
        "gradient_norm": float(rows[0]["policy/gradient_norm"]),
        "moved": float(moved.norm()),
        "apart": float(apart.norm()),
        "apart_relative": float(apart.norm() / moved.norm()),
    }


def main() -> None:
    """Compare, print and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny(Path(folder), options.quick)
        found = compare(model, prompts=8)
    row = {
        "weights": "after four updates on the same 64 responses",
        "moved (norm)": found["moved"],
        "apart (norm)": found["apart"],
        "apart / moved": found["apart_relative"],
    }
    goals = [
        measure.Goal("same samples, same weights as TRL's: apart / moved", found["apart_relative"], 0.001, "")
    ]
    measure.write("same_work", options.results, began, {"": [row]}, goals)
    print(found)


if __name__ == "__main__":
    main()
