"""Model settings -> a base model as an ordinary Hugging Face folder."""

import time
from collections.abc import Callable
from pathlib import Path

from entropy_mechanism import tracking
from entropy_mechanism.config import HubModel, TinyModel, chosen, load_experiment
from entropy_mechanism.models import manifest
from entropy_mechanism.stages.runtime import compute_on_cpu


def make_model(experiment: Path, model: str, output: Path, results: Path) -> None:
    """Warm up a base model into the folder of its manifest `output`, or write the manifest of a published one."""
    compute_on_cpu()
    settings = chosen("--model", model, load_experiment(experiment).models)
    params = settings.model_dump(mode="json")
    with tracking.stage("make_model", model, results=results, params=params, outputs=[output]) as record:
        if isinstance(settings, HubModel):
            facts = _published(settings, output)
        else:
            facts = _warmed_up(settings, model, output, record)
        record.metrics({name: fact for name, fact in facts.items() if not isinstance(fact, str | None)})
        print(f"{model}: " + ", ".join(f"{name} {_shown(fact)}" for name, fact in facts.items()))


def _shown(fact: object) -> str:
    return f"{fact:.4g}" if isinstance(fact, int | float) else str(fact)


def _warmed_up(settings: TinyModel, model: str, output: Path, record: tracking.StageRecord) -> dict:
    from entropy_mechanism.models.load import save_policy
    from entropy_mechanism.models.tiny import build_tokenizer, warm_up

    tokenizer = build_tokenizer(settings.warmup.task)
    result = warm_up(settings, tokenizer, Progress(model))
    save_policy(result.model, tokenizer, output.parent)
    parameters = result.model.num_parameters()
    embedding = sum(weight.numel() for weight in result.model.get_input_embeddings().parameters())
    heads = embedding if settings.tied else 2 * embedding
    facts = {"parameters": parameters, "non_embedding_parameters": parameters - heads, **result.statistics}
    manifest.write(output, output.parent, facts)
    for name in manifest.read(output).digests:
        record.outputs_also(output.parent / name)
    for entry in result.log:
        record.metrics({"loss": entry.loss, "learning_rate": entry.learning_rate}, entry.step)
    return facts


class Progress:
    """How far a warm-up is: a line at its beginning, and one every `pause` seconds."""

    def __init__(self, model: str, pause: float = 10.0, now: Callable[[], float] = time.monotonic) -> None:
        """Take the time from here on."""
        self.model, self.pause, self.now = model, pause, now
        self.began = self.told = now()

    def __call__(self, done: int, steps: int) -> None:
        """Say it, if it is time to."""
        if done == 0:
            print(f"{self.model}: warming up for {steps} steps", flush=True)
        elif self.now() - self.told >= self.pause:
            self.told = self.now()
            left = (self.told - self.began) / done * (steps - done)
            print(f"{self.model}: step {done}/{steps} of the warm-up, {left:.0f} s left", flush=True)


def _published(settings: HubModel, output: Path) -> dict:
    """The manifest points to the weights where they are; they are far too large to copy."""
    from entropy_mechanism.models.hub import fetch, sizes

    folder = fetch(settings)
    parameters, outside = sizes(folder)
    # The cache names the folder of a snapshot after its commit.
    commit = folder.name if settings.folder is None else None
    facts = {"id": settings.id, "commit": commit, "parameters": parameters, "non_embedding_parameters": outside}
    template = {"chat_template": settings.chat_template} if settings.chat_template else {}
    manifest.write(output, folder, facts | template)
    return facts
