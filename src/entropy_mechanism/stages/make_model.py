"""Model settings -> a base model as an ordinary Hugging Face folder."""

from pathlib import Path

from entropy_mechanism import tracking
from entropy_mechanism.config import chosen, load_experiment
from entropy_mechanism.models import manifest
from entropy_mechanism.models.load import save_policy
from entropy_mechanism.models.tiny import build_tokenizer, warm_up
from entropy_mechanism.stages.runtime import use_one_thread


def make_model(experiment: Path, model: str, output: Path, results: Path) -> None:
    """Warm up one base model into the folder of its manifest `output`."""
    use_one_thread()
    settings = chosen("--model", model, load_experiment(experiment).models)
    params = settings.model_dump(mode="json")
    with tracking.stage("make_model", model, results=results, params=params, outputs=[output]) as record:
        print(f"{model}: warming up for {settings.warmup.steps} steps", flush=True)
        tokenizer = build_tokenizer(settings.warmup.task)
        result = warm_up(settings, tokenizer)
        save_policy(result.model, tokenizer, output.parent)
        parameters = result.model.num_parameters()
        embedding = result.model.get_input_embeddings().weight.numel()
        heads = embedding if settings.tied else 2 * embedding
        facts = {"parameters": parameters, "non_embedding_parameters": parameters - heads, **result.statistics}
        manifest.write(output, output.parent, facts)
        for name in manifest.read(output).digests:
            record.outputs_also(output.parent / name)
        for entry in result.log:
            record.metrics({"loss": entry.loss, "learning_rate": entry.learning_rate}, entry.step)
        record.metrics(facts)
        print(f"{model}: " + ", ".join(f"{name} {value:.4g}" for name, value in facts.items()))
