"""What an experiment is expected to cost: seconds per run and phase, GPU hours, wall time, storage. All estimates.

docs/reproducing.md states the sums; every constant is one of the names in capitals below. Light: nothing is
downloaded or loaded.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from entropy_mechanism.config import HubModel, KlCov, OwnObjective, RunConfig, TinyModel
from entropy_mechanism.memory import GIB, cache_tokens, trained, width
from entropy_mechanism.methods import Selection
from entropy_mechanism.plan import Plan
from entropy_mechanism.shapes import Shape

DRAWS = 2.5
"""Generation batches of a step, `max_batches` at most: the group filter keeps about half of the prompts."""
RECORD_BYTES = 17
"""Of a token in the records."""
CHECKPOINTS = 2
"""Kept of a run, each 12 bytes a weight."""
SMALL_JOBS = 15.0
"""Core seconds of a run's other jobs, its analyses above all; they matter for tiny models alone."""
DIFFERENT = 0.6
"""Share of sampled programs that have to be run; equal ones are run once in a training."""
PROGRAM = {"generated": 0.008, "published": 0.05}
"""Seconds that the tests of a program take in one sandbox; docs/grading-code.md."""
SANDBOXES = {"cpu": 1, "cuda": 8}
"""At work at once; two trainings on two cores leave each other one."""
SMALL_JOB = 2.0
"""Core seconds of a job that neither trains nor answers: mostly Python's start."""
SOLUTION = 26
"""Tokens of a problem and its solution in a tiny model's warm-up."""


@dataclass(frozen=True)
class Machine:
    """What one GPU, or one CPU core, does in a second."""

    flops: float
    """Floating-point operations of the trainer: peak times the share that training reaches."""
    decoding: float
    """The same of an engine that samples."""
    bandwidth: float
    """Bytes that an engine reads from memory."""
    call: float
    """Seconds that a forward pass takes however small it is."""
    start: float
    """Seconds to start a job and load its model."""
    transfer: float
    """Bytes a second between ranks, engine and main memory, and to the store."""


MACHINES = {
    # Peak in bfloat16 without sparsity and memory bandwidth as in the maker's data sheets. Assumed: 35 % of the
    # peak in training, 20 % in sampling, 60 % of the bandwidth.
    "a100": Machine(0.35 * 312e12, 0.20 * 312e12, 0.6 * 2.0e12, 4e-3, 180, 10e9),
    "h100": Machine(0.35 * 989e12, 0.20 * 989e12, 0.6 * 3.35e12, 4e-3, 180, 15e9),
    # A core of a server with AVX-512 and tiny models in float32, measured; most of their time is that of calls.
    "cpu": Machine(80e9, 60e9, 20e9, 3.5e-3, 6, 1e9),
}


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt and of a response; a response is a third of the longest at most."""

    prompt: int
    response: int

    def of(self, longest: int) -> float:
        """Mean response where the longest may have `longest` tokens."""
        return min(self.response, longest / 3)


GENERATED = Lengths(12, 9)
"""Arithmetic and programs of the tiny experiments."""
PUBLISHED = Lengths(200, 1300)
"""Mathematics. Responses as in the published Fig 11, averaged over training: at 7B 1,000 tokens for GRPO and up to
1,420 for the others."""


@dataclass(frozen=True)
class Scale:
    """How much slower than estimated a machine was found to be, and how long responses are there."""

    sample: float = 1.0
    train: float = 1.0
    response: float | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds of a run by phase, on `devices` GPUs or cores, and what it leaves in the store."""

    run: str
    devices: int
    sample: float
    train: float
    validate: float
    other: float
    """Start, weights on their way, checkpoints, programs that are run."""
    storage: float
    """Bytes: final weights, checkpoints, records."""

    @property
    def seconds(self) -> float:
        """Wall time of the run."""
        return self.sample + self.train + self.validate + self.other

    @property
    def device_hours(self) -> float:
        """GPU hours, or core hours."""
        return self.seconds * self.devices / 3600


def forward_flops(shape: Shape, tokens: float) -> float:
    """Operations per token of a forward pass over `tokens` tokens: two a weight, and causal attention."""
    weights = shape.layers * shape.layer_parameters + shape.head_parameters
    return 2 * weights + 2 * shape.layers * shape.query_width * tokens


def decode_seconds(
    run: RunConfig,
    shape: Shape,
    responses: float,
    prompt: float,
    response: float,
    longest: float,
    machine: Machine,
) -> float:
    """Seconds in which all engines of a run answer, each with as many responses at once as its cache holds.

    A step of an engine reads its weights and the cache of the responses in it, or computes, whichever is longer.
    The last response goes on alone to the longest length.
    """
    compute = run.compute
    size = width(run)
    together = responses / (compute.ranks / compute.tensor_parallel)
    length = prompt + response
    if compute.engine == "vllm":
        room = cache_tokens(run, shape, (compute.gpu_gib or 80) * GIB) / length
        at_once = max(1.0, min(together, room))
    else:
        at_once = together
    parts = compute.tensor_parallel
    entry = 2 * size * shape.layers * shape.kv_width / min(parts, shape.kv_heads)
    weights = size * shape.parameters / parts

    def step(rows: float) -> float:
        read = (weights + rows * entry * length) / machine.bandwidth
        return machine.call + max(read, rows * forward_flops(shape, length) / parts / machine.decoding)

    prefill = together * prompt * forward_flops(shape, prompt) / parts / machine.decoding
    full = together / at_once * response
    return prefill + full * step(at_once) + max(0.0, longest - full) * step(1)


def passes(run: RunConfig) -> float:
    """Forward passes over the kept responses of a step; a backward pass counts as two."""
    # Before the update: the kept responses, and those of the first batch that are measured and dropped.
    forward = 1.5
    update = 4.0 if run.compute.activation_checkpointing else 3.0
    objective = run.objective
    if isinstance(objective, OwnObjective) and objective.takes_covariance:
        forward += 1
    if isinstance(objective, Selection) and objective.needs_current and objective.scope == "minibatch":
        forward += 1  # an update of several micro-batches is read once more to select over all of them
    if isinstance(objective, KlCov) and objective.penalty == "full":
        forward += 1
    if run.regularisation.reference_kl:
        forward += 1
    if run.advantage.estimator == "prime":
        forward, update = forward + 2, 2 * update
    if run.training.measure_entropy_change_every:
        forward += 3 / run.training.measure_entropy_change_every
    return forward + update


def cost(
    run: RunConfig,
    shape: Shape,
    problems: int,
    lengths: Lengths,
    machine: Machine,
    scale: Scale = Scale(),
    program: float = 0.0,
) -> Cost:
    """The estimate of a run that is validated on `problems` problems; a response is run for `program` seconds."""
    training, compute = run.training, run.compute
    response = scale.response or lengths.of(training.max_response)
    kept = training.prompts * training.samples
    drawn = kept * (min(DRAWS, training.max_batches) if training.filter_groups else 1)
    decode = (lengths.prompt, response, min(training.max_response, 8 * response), machine)
    sample = decode_seconds(run, shape, drawn, *decode)
    validate = decode_seconds(run, shape, problems, *decode)
    length = lengths.prompt + response
    flops = kept * length * forward_flops(shape, length) * passes(run)
    calls = passes(run) * max(training.updates, kept * length / training.micro_batch_tokens / compute.ranks)
    train = flops / compute.ranks / machine.flops + calls * machine.call
    validations = 1 + -(-training.steps // training.validate_every)
    tested = DIFFERENT * program * (training.steps * drawn + validations * problems)
    tested /= SANDBOXES[compute.device or "cpu"]
    saved = 12 * shape.parameters * trained(run)
    writes = training.steps // training.checkpoint_every * saved / machine.transfer
    moves = training.steps * (4 * shape.parameters / machine.transfer if compute.engine == "vllm" else 0)
    recorded = 0 if not training.record_tokens_every else 1 + (training.steps - 1) // training.record_tokens_every
    records = recorded * kept * response * RECORD_BYTES
    return Cost(
        run.run,
        compute.ranks,
        scale.sample * training.steps * sample,
        scale.train * training.steps * train,
        scale.sample * validations * validate,
        machine.start + moves + writes + tested,
        4 * shape.parameters + CHECKPOINTS * saved + records,
    )


def training(
    plan: Plan,
    name: str,
    shape: Shape,
    problems: Callable[[str], int],
    gpu: str = "h100",
    scale: Scale = Scale(),
) -> Cost:
    """The estimate of a run of a plan; `problems` counts those of a data set."""
    run = plan.run_config(name)
    kind = "published" if isinstance(plan.experiment.models[run.model], HubModel) else "generated"
    program = PROGRAM[kind] if plan.is_code(run.train_set) else 0.0
    validation = problems(plan.validations[name])
    return cost(run, shape, validation, lengths_of(plan, run.model), machine_of(run, gpu), scale, program)


def evaluation(plan: Plan, name: str, shape: Shape, problems: Callable[[str], int], gpu: str = "h100") -> Cost:
    """The estimate of a policy's answers to its benchmarks; `problems` counts those of a data set."""
    policy, settings = plan.policies[name], plan.experiment.evaluation
    key = name if policy.run else next(key for key, run in plan.runs.items() if run.model == policy.model)
    run = plan.run_config(key).model_copy(update={"run": name})
    counts = []
    for benchmark in (settings.benchmarks[key] for key in plan.benchmarks(name)):
        samples = benchmark.samples + ("greedy" in benchmark.protocols)
        counts.append((samples * problems(benchmark.data), benchmark.max_response or settings.max_response))
    return answering(run, shape, counts, lengths_of(plan, run.model), machine_of(run, gpu))


def warming_up(settings: TinyModel, shape: Shape, machine: Machine) -> float:
    """Seconds of a tiny model's warm-up."""
    steps = 0.0
    for warmup in filter(None, (settings.warmup, settings.instruct)):
        flops = 3 * warmup.batch * SOLUTION * forward_flops(shape, SOLUTION)
        steps += warmup.steps * (flops / machine.flops + 3 * machine.call)
    return machine.start + steps


def answering(
    run: RunConfig, shape: Shape, counts: Iterable[tuple[int, int]], lengths: Lengths, machine: Machine
) -> Cost:
    """The estimate of a policy's answers to benchmarks, given as (responses, longest response) by benchmark."""
    alone = run.compute.model_copy(update={"ranks": run.compute.tensor_parallel})
    run = run.model_copy(update={"compute": alone})
    seconds = sum(
        decode_seconds(run, shape, responses, lengths.prompt, lengths.of(limit), limit, machine)
        for responses, limit in counts
    )
    return Cost(run.run, alone.ranks, seconds, 0, 0, machine.start, 0)


def wall_seconds(costs: Iterable[Cost], devices: int) -> float:
    """Wall time of runs on a number of devices, longest runs first, each as soon as it has the devices it needs.

    Raises ValueError when a run needs more devices than there are.
    """
    waiting = sorted(costs, key=lambda cost: (-cost.seconds, -cost.devices))
    if waiting and (largest := max(waiting, key=lambda cost: cost.devices)).devices > devices:
        raise ValueError(
            f"found {devices} devices; {largest.run} needs {largest.devices} at once; allowed: that or more"
        )
    free, now = devices, 0.0
    running: list[tuple[float, int]] = []
    while waiting or running:
        started = []
        for one in waiting:
            if one.devices <= free:
                heapq.heappush(running, (now + one.seconds, one.devices))
                free -= one.devices
                started.append(one)
        waiting = [one for one in waiting if one not in started]
        now, ended = heapq.heappop(running)
        free += ended
    return now


def calibrated(
    run: RunConfig, shape: Shape, lengths: Lengths, machine: Machine, measured: Mapping[str, float]
) -> Scale:
    """The scale at which the estimate of a run equals what its metrics say.

    `measured` holds means per step: `sample` and `train` seconds, and `response` tokens.
    """
    expected = cost(run, shape, 1, lengths, machine, Scale(response=measured["response"]))
    steps = run.training.steps
    sample, train = measured["sample"] * steps / expected.sample, measured["train"] * steps / expected.train
    return Scale(sample, train, measured["response"])


def machine_of(run: RunConfig, gpu: str) -> Machine:
    """The machine that a run is estimated on."""
    return MACHINES["cpu" if run.compute.device == "cpu" else gpu]


def lengths_of(plan: Plan, model: str) -> Lengths:
    """Tokens of prompts and responses of a model's runs."""
    return PUBLISHED if isinstance(plan.experiment.models[model], HubModel) else GENERATED
