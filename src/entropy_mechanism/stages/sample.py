"""A policy and the benchmarks -> responses.

One job answers all benchmarks, since reading a large policy is slow. What it has finished is kept in the store by
fingerprint, so a job that was cut short, or got one more benchmark, does only what is new.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import Benchmark, Compute, Experiment, chosen, load_experiment, named_paths
from entropy_mechanism.data.problems import from_frame
from entropy_mechanism.models import manifest
from entropy_mechanism.models.load import load_policy, load_tokenizer
from entropy_mechanism.rl.collect import Question
from entropy_mechanism.rl.ranks import join
from entropy_mechanism.rollouts.engine import Completion, Engine, Sampling, sample_seed
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
from entropy_mechanism.stages import shared
from entropy_mechanism.stages.runtime import (
    compute_on_cpu,
    longest_prompt,
    questions,
    response_text,
    stop_ids,
    vllm_engine,
)

SAMPLING_VERSION = 2
"""Raised by hand whenever a change of code changes the responses."""
SHARED_NAME = "responses.parquet"
"""Responses to one benchmark in a shared store."""


def sample(
    experiment: Path,
    policy: Path,
    model: str,
    problems: list[str],
    outputs: list[str],
    key: str,
    store: Path,
    results: Path,
    shared_store: Path | None = None,
) -> None:
    """Answer benchmarks; `problems` and `outputs` name one file for each benchmark as `benchmark=file`.

    `model` is the base model's name: the policy answers where runs of it train.
    """
    settings = load_experiment(experiment)
    chosen("--model", model, settings.models)
    compute = settings.compute_of(model)
    if compute.device == "cpu":
        compute_on_cpu()
    benchmarks = settings.evaluation.benchmarks
    sources = named_paths("--problems", problems, benchmarks)
    targets = named_paths("--outputs", outputs, sources)
    with tracking.stage(
        "sample",
        key,
        results=results,
        params=settings.evaluation.model_dump(mode="json") | {"compute": compute.model_dump(mode="json")},
        inputs=[policy, *sources.values()],
        outputs=targets.values(),
    ) as record:
        responder = _Responder(policy, settings, compute, sources)
        taken: dict[str, str] = {}
        for name, target in targets.items():
            fingerprint = responder.fingerprint(name)
            cached = store / "samples" / f"{fingerprint}.parquet"
            if cached.is_file():
                record.found(cached)
            else:
                if source := shared.find(shared_store, fingerprint):
                    _copy(source / SHARED_NAME, cached)
                    taken[name] = str(source)
                    record.param("taken_from", taken)
                else:
                    files.write_parquet(cached, responder.answer(name))
                record.artifact(cached)
            if name not in taken:
                shared.publish(shared_store, fingerprint, {SHARED_NAME: cached}, record.provenance)
            _copy(cached, target)
            frame = pd.read_parquet(target)
            record.metrics({f"{name}/responses": len(frame), f"{name}/mean_tokens": frame["tokens"].mean()})
            print(f"{key}: {name}: {len(frame)} responses, {frame['tokens'].mean():.1f} tokens on average")


def _copy(source: Path, target: Path) -> None:
    with files.replacing(target) as temporary:
        shutil.copyfile(source, temporary)


class _Responder:
    """A policy with its engine, loaded when first needed."""

    def __init__(
        self, policy: Path, experiment: Experiment, compute: Compute, problems: Mapping[str, Path]
    ) -> None:
        self.source = manifest.read(policy)
        self.source.verify()
        self.experiment, self.evaluation = experiment, experiment.evaluation
        self.compute, self.problems = compute, problems
        self.tokenizer = load_tokenizer(self.source.weights, self.source.chat_template)
        self.engine: Engine | None = None

    def fingerprint(self, benchmark: str) -> str:
        """What determines the responses to a benchmark, in sixteen digits."""
        return files.fingerprint(
            {
                "version": SAMPLING_VERSION,
                "policy": self.source.identity,
                "problems": files.sha256(self.problems[benchmark]),
                "draws": self._draws(self.evaluation.benchmarks[benchmark]),
                "max_response": self._longest(benchmark),
                "prompt": self.experiment.prompt_of(benchmark),
                "stop": self.evaluation.stop,
                "seed": self.evaluation.seed,
                "engine": self.compute.engine,
                "dtype": self.experiment.training.dtype,
            }
        )

    def answer(self, benchmark: str) -> pd.DataFrame:
        """One row per response: once greedily, and so many times at the evaluation's temperature, as asked for."""
        if self.engine is None:
            self.engine = self._engine()
        problems = self.problems[benchmark]
        ids = [problem.id for problem in from_frame(pd.read_parquet(problems), str(problems))]
        asked = [question.prompt_ids for question in self._questions(benchmark)]
        stop, rows = stop_ids(self.tokenizer, self.evaluation.stop), []
        for decoding, (temperature, samples) in self._draws(self.evaluation.benchmarks[benchmark]).items():
            sampling = Sampling(temperature, self._longest(benchmark), stop)
            seeds = [[sample_seed("evaluation", self.evaluation.seed, i, n) for n in range(samples)] for i in ids]
            groups = self.engine.generate(asked, sampling, seeds)
            rows += [
                _row(problem, decoding, n, completion, response_text(self.tokenizer, completion))
                for problem, group in zip(ids, groups, strict=True)
                for n, completion in enumerate(group)
            ]
        return pd.DataFrame(rows)

    def _questions(self, benchmark: str) -> list[Question]:
        return questions(self.problems[benchmark], self.tokenizer, self.experiment.prompt_of(benchmark))

    def _engine(self) -> Engine:
        """One process answers, with vLLM on as many GPUs as share an engine."""
        weights, dtype = self.source.weights, self.experiment.training.dtype
        with join(self.compute.model_copy(update={"ranks": 1})) as ranks:
            if self.compute.engine == "vllm":
                longest = max(
                    longest_prompt(self._questions(name)) + self._longest(name) for name in self.problems
                )
                return vllm_engine(self.compute, weights, len(self.tokenizer), longest, dtype)
            policy = load_policy(weights)
            policy.to(ranks.device)  # type: ignore[arg-type]  # transformers' wrapper takes it for a function
            return TransformersEngine(policy, len(self.tokenizer), dtype=dtype)

    def _draws(self, settings: Benchmark) -> dict[str, tuple[float, int]]:
        """Temperature and responses per problem of each way of decoding."""
        draws: dict[str, tuple[float, int]] = {"greedy": (0.0, 1)} if "greedy" in settings.protocols else {}
        if settings.samples:
            draws["sampled"] = (settings.temperature or self.evaluation.temperature, settings.samples)
        return draws

    def _longest(self, benchmark: str) -> int:
        """Response tokens at most."""
        return self.evaluation.benchmarks[benchmark].max_response or self.evaluation.max_response


def _row(problem: str, decoding: str, n: int, completion: Completion, response: str) -> dict[str, object]:
    return {
        "problem_id": problem,
        "decoding": decoding,
        "sample": n,
        "response": response,
        "tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }
