"""One training by this project or by TRL's GRPOTrainer: seconds a step, phases, memory.

Called by rl_step.py, scaling.py and gpu.py. Both get the same weights, prompts, samples, lengths, updates and
settings: GRPO without group filter, clip range 0.2, mean over the tokens of an update, AdamW at a constant rate,
gradient norm clipped at 1, float32 without activation checkpointing (on a GPU bfloat16 by autocast). Both compute
log-probabilities before the updates and the exact entropy, grade every response, and log a row for every step.
`same_work.py` checks that they make the same weights of the same samples.
"""

import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import torch

from entropy_mechanism.config import RunConfig, load_experiment
from entropy_mechanism.plan import Plan
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl.collect import Question

EXPERIMENT = measure.REPOSITORY / "config/experiments/tiny.yaml"
RUN = "width64--train--grpo--s1"


# --- what is trained ----------------------------------------------------------------------------------------


def make_tiny(folder: Path, quick: bool) -> Path:
    """The base model and the problems of RUN of the tiny experiment, as its stages make them; their folder.

    `make bench` makes them once for all topics, in the folder that it names in the environment.
    """
    from entropy_mechanism.data import arithmetic
    from entropy_mechanism.data.problems import to_frame
    from entropy_mechanism.models.load import save_policy
    from entropy_mechanism.models.tiny import build_tokenizer, warm_up

    folder = Path(os.environ.get(measure.SHARED, folder)) / "tiny"
    if folder.is_dir():
        return folder
    experiment = load_experiment(EXPERIMENT)
    model = experiment.models["width64"]
    if quick:
        model = model.model_copy(update={"warmup": model.warmup.model_copy(update={"steps": 5})})
    tokenizer = build_tokenizer(model.warmup.task)
    torch.set_num_threads(1)
    save_policy(warm_up(model, tokenizer).model, tokenizer, folder)
    for name in ("train", "validation"):
        to_frame(arithmetic.generate(experiment.data[name])).to_parquet(folder / f"{name}.parquet")
    return folder


def make_random(folder: Path, layers: int, width: int, heads: int, inner: int, vocabulary: int) -> Path:
    """A random Qwen2 model with tied weights, and no tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


class Task:
    """Prompts, their tokenizer, when a response ends, and how it is graded.

    The tiny experiment's arithmetic; or, for a random model, random prompts of `prompt_tokens` words and responses
    that end at their longest, since no token ends them: right when their ids have an odd sum.
    """

    def __init__(self, work: dict[str, Any]) -> None:
        """What `work` asks for."""
        folder = Path(work["model"])
        self.close: Callable[[], None] = lambda: None
        self.validation: list[Question] = []
        if work.get("prompt_tokens"):
            from entropy_mechanism.shapes import from_folder

            self.vocabulary = from_folder(folder).vocabulary
            self.tokenizer = _words(self.vocabulary)
            shape, generator = (256, work["prompt_tokens"]), torch.Generator().manual_seed(0)
            ids = torch.randint(self.vocabulary, shape, generator=generator).tolist()
            self.questions = [Question(row, "") for row in ids]
            self.stop_ids = (self.tokenizer.eos_token_id,)
            self.grade = lambda completions, questions: [_odd(c.token_ids) for c in completions]
            self.grade_text = lambda texts, ids, answers: [_odd(row) for row in ids]
        else:
            from entropy_mechanism.models.load import load_tokenizer
            from entropy_mechanism.rewards.grading import Grader
            from entropy_mechanism.stages.runtime import completion_grader, questions, stop_ids

            self.tokenizer = load_tokenizer(folder)
            self.vocabulary = len(self.tokenizer)
            self.questions = questions(folder / "train.parquet", self.tokenizer)
            self.validation = questions(folder / "validation.parquet", self.tokenizer)
            self.stop_ids = stop_ids(self.tokenizer, None)
            grader = Grader("strict")
            self.close = lambda: grader.__exit__()
            self.grade = completion_grader(grader, self.tokenizer)
            self.grade_text = lambda texts, ids, answers: [
                verdict.outcome
                for verdict in grader.grade_all(texts, [Question([], answer) for answer in answers])
            ]

    def text(self, question: Question) -> str:
        """The prompt as text. Raises ValueError when tokenizing it would give other tokens."""
        text = self.tokenizer.decode(question.prompt_ids)
        if self.tokenizer(text)["input_ids"] != question.prompt_ids:
            raise ValueError(f"prompt {text!r} has other tokens than {question.prompt_ids}")
        return text


def _words(vocabulary: int) -> Any:
    """A tokenizer of words w0, w1, …; the one that ends a response is not in the model's vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pipeline = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary + 1)}, unk_token="w0"))
    pipeline.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=pipeline, eos_token=f"w{vocabulary}", pad_token="w0")


def _odd(ids: Sequence[int]) -> Outcome:
    return Outcome.CORRECT if sum(ids) % 2 else Outcome.WRONG


def run_config(work: dict[str, Any]) -> RunConfig:
    """RUN of the tiny experiment with the changes that `work` asks for."""
    run = Plan(load_experiment(EXPERIMENT)).run_config(RUN).model_dump(mode="json")
    run["training"] |= work["training"]
    run["objective"] = work.get("objective", run["objective"])
    run["advantage"] |= work.get("advantage", {})
    run["compute"] = {"device": work.get("device", "cpu")}
    return RunConfig.model_validate(run)


# --- this project -------------------------------------------------------------------------------------------


class Measured(Exception):
    """All steps are done; the row that describes the last policy is not waited for."""


def ours(work: dict[str, Any]) -> dict[str, Any]:
    """Train with this project's Trainer, as `entropy-mechanism train` sets it up."""
    from entropy_mechanism.models.load import load_policy
    from entropy_mechanism.rl.loop import Hooks, Trainer
    from entropy_mechanism.rl.ranks import join
    from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
    from entropy_mechanism.stages.runtime import keep_freed_memory
    from entropy_mechanism.stages.training import MetricsLog

    run, task = run_config(work), Task(work)
    if run.compute.device == "cpu":
        torch.use_deterministic_algorithms(True)
        if work.get("keep", True):
            keep_freed_memory()
    moments: list[float] = []
    rows = []
    with tempfile.TemporaryDirectory() as folder, join(run.compute) as ranks:
        log = MetricsLog(Path(folder) / "metrics.jsonl", run)

        def row(values: dict[str, float | None]) -> None:
            began = time.perf_counter()
            log.row(values)
            moments.append(time.perf_counter())
            rows.append(values | {"time/log": moments[-1] - began})
            if len(rows) == run.training.steps:
                raise Measured

        policy = load_policy(work["model"]).to(ranks.device)
        trainer = Trainer(
            config=run,
            model=policy,
            engine=TransformersEngine(policy, task.vocabulary, dtype=run.training.dtype),
            grader=task.grade,
            questions=task.questions,
            validation=task.validation or task.questions[:1],
            stop_ids=task.stop_ids,
            checkpoints=Path(folder) / "checkpoints",
            hooks=Hooks(row=row, stop=lambda: False, warn=print),
            ranks=ranks,
        )
        if run.training.validate_every > run.training.steps:
            trainer.validate = lambda: 0.0  # it would before the first step, as TRL does not
        before = _memory(run.compute.device)
        log.start(0)
        moments.append(time.perf_counter())
        with contextlib.suppress(Measured):
            trainer.train()
        log.close()
    task.close()
    timed = slice(work["warm"], None)
    seconds = [after - before for before, after in itertools.pairwise(moments)][timed]
    rows = rows[timed]
    phases = ("sample", "grade", "logprob", "update", "validate", "checkpoint", "log")
    mean = {name: statistics.fmean(row[f"time/{name}"] for row in rows) for name in phases}
    return {
        "seconds": seconds,
        "phases": mean | {"rest": statistics.fmean(seconds) - sum(mean.values())},
        "response_tokens": statistics.fmean(row["length/mean"] for row in rows),
        "prompt_tokens": _mean_prompt(task.questions),
        "batches": statistics.fmean(row["rollout/batches"] for row in rows),
        "reward": statistics.fmean(row["reward/mean"] for row in rows),
        "entropy": statistics.fmean(row["entropy/token_mean/before_filter"] for row in rows),
        "gradient_norm": statistics.fmean(row["policy/gradient_norm"] for row in rows),
        "peak_gb": (_peak(run.compute.device) - before) / 1e9,
    }


# --- TRL ----------------------------------------------------------------------------------------------------


def trl(work: dict[str, Any]) -> dict[str, Any]:
    """Train with TRL's GRPOTrainer."""
    from entropy_mechanism.models.load import load_policy

    run, task = run_config(work), Task(work)
    phases: dict[str, list[float]] = defaultdict(list)
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(run, task, load_policy(work["model"]), task.questions, folder, phases, moments)
        before = _memory(run.compute.device)
        moments.append(time.perf_counter())
        trainer.train()
    task.close()
    timed = slice(work["warm"], None)
    seconds = [after - before for before, after in itertools.pairwise(moments)][timed]
    mean = {name: statistics.fmean(taken[timed]) for name, taken in phases.items()}
    history = [entry for entry in trainer.state.log_history if "reward" in entry][timed]
    return {
        "seconds": seconds,
        "phases": mean | {"update": statistics.fmean(seconds) - sum(mean.values())},
        "response_tokens": statistics.fmean(entry["completions/mean_length"] for entry in history),
        "prompt_tokens": _mean_prompt(task.questions),
        "reward": statistics.fmean(entry["reward"] for entry in history),
        "entropy": statistics.fmean(entry["entropy"] for entry in history),
        "gradient_norm": statistics.fmean(entry["grad_norm"] for entry in history),
        "peak_gb": (_peak(run.compute.device) - before) / 1e9,
    }


def trl_trainer(
    run: RunConfig,
    task: Task,
    policy: torch.nn.Module,
    questions: Sequence[Question],
    folder: str,
    phases: dict[str, list[float]],
    moments: list[float],
    **more: Any,
) -> Any:
    """GRPOTrainer for `run`; it adds the seconds of each rollout step's phases and the moment it ended.

    `more` goes to GRPOTrainer, for same_work.py.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    training, objective = run.training, run.objective

    @contextlib.contextmanager
    def timed(phase: str) -> Any:
        began = time.perf_counter()
        yield
        phases[phase].append(time.perf_counter() - began)

    class Timed(GRPOTrainer):
        def _generate(self, prompts):
            with timed("sample"):
                return super()._generate(prompts)

        def _calculate_rewards(self, *args):
            with timed("grade"):
                return super()._calculate_rewards(*args)

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            with contextlib.nullcontext() if torch.is_grad_enabled() else timed("logprob"):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % training.updates == 0:
                moments.append(time.perf_counter())

    def reward(prompts, completions, completion_ids, answer, **rest):
        outcomes = task.grade_text(completions, completion_ids, answer)
        return [float(outcome is Outcome.CORRECT) for outcome in outcomes]

    settings = GRPOConfig(
        output_dir=folder,
        use_cpu=run.compute.device == "cpu",
        bf16=training.dtype == "bfloat16",
        gradient_checkpointing=False,
        per_device_train_batch_size=training.prompts * training.samples // training.updates,
        gradient_accumulation_steps=1,
        steps_per_generation=training.updates,
        num_generations=training.samples,
        max_completion_length=training.max_response,
        max_steps=training.steps * training.updates,
        temperature=training.temperature,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=training.weight_decay,
        max_grad_norm=training.gradient_clip,
        beta=0.0,
        epsilon=objective.clip_low,
        epsilon_high=objective.clip_high,
        loss_type="bnpo",  # the mean over the tokens of an update
        scale_rewards="group",
        logging_steps=training.updates,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        shuffle_dataset=not more,
        seed=run.seed,
    )
    data = [{"prompt": task.text(question), "answer": question.answer} for question in questions]
    made = Timed(policy, reward, settings, Dataset.from_list(data), processing_class=task.tokenizer, **more)
    made.add_callback(Clock())
    made.remove_callback(PrinterCallback)
    return made


# --- both ---------------------------------------------------------------------------------------------------


def _mean_prompt(questions: Sequence[Question]) -> float:
    return statistics.fmean(len(question.prompt_ids) for question in questions)


def _memory(device: str | None) -> int:
    """Memory in use, from which on the peak is counted."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    measure.forget_peak()
    return measure.resident_bytes()


def _peak(device: str | None) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else measure.peak_bytes()


TRAINERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"ours": ours, "trl": trl}
NAMES = {"ours": "this project", "trl": "TRL"}
