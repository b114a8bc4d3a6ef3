"""Published base models: used where they are, with errors that say what to do."""

import json

import pytest
import yaml

from entropy_mechanism import files
from entropy_mechanism.config import HubModel, load_experiment
from entropy_mechanism.models import manifest
from entropy_mechanism.models.hub import ModelError, fetch, sizes
from entropy_mechanism.models.load import load_policy, load_tokenizer, save_policy
from entropy_mechanism.models.tiny import build_tokenizer
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.make_model import make_model
from entropy_mechanism.stages.train import training_fingerprint


@pytest.fixture
def copy(tmp_path, policy):
    """A local copy of a repository, its weights in two shards as large ones are."""
    tokenizer = build_tokenizer()
    policy.resize_token_embeddings(len(tokenizer))
    save_policy(policy, tokenizer, tmp_path / "copy")
    (tmp_path / "copy/model.safetensors").unlink()
    policy.save_pretrained(tmp_path / "copy", max_shard_size="30KB")
    assert len(list((tmp_path / "copy").glob("*.safetensors"))) > 1
    return tmp_path / "copy"


def settings(**changes):
    return HubModel.model_validate({"kind": "hub", "id": "Example/Base", **changes})


def test_a_published_model_gets_a_manifest_and_its_weights_stay_where_they_are(copy, policy, tmp_path):
    experiment = {
        "title": "one model",
        "data": {
            "train": {"kind": "arithmetic", "split": "train", "operands": [2, 3], "problems": 10},
            "held": {"kind": "arithmetic", "split": "test", "operands": [2, 3], "problems": 10},
        },
        "validation": "held",
        "models": {"base": {"kind": "hub", "id": "Example/Base", "folder": str(copy)}},
        "methods": {"grpo": {"objective": {"name": "ppo-clip"}}},
        "training": {
            "steps": 1, "prompts": 2, "samples": 2, "updates": 1, "learning_rate": 1e-3, "max_response": 8
        },
        "runs": [{"models": ["base"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1]}],
        "evaluation": {"max_response": 8, "benchmarks": {"easy": {"data": "held", "protocols": ["greedy"]}}},
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(experiment))
    output = tmp_path / "results/models/base/manifest.json"
    make_model(path, "base", output, tmp_path / "results")
    assert [entry.name for entry in output.parent.iterdir()] == ["manifest.json"]
    found = manifest.read(output)
    found.verify()
    assert found.weights == copy
    assert found.digests == files.sha256_of_tree(copy)
    loaded = load_policy(found.weights)
    assert all((loaded.state_dict()[name] == value).all() for name, value in policy.state_dict().items())
    assert load_tokenizer(found.weights).eos_token == "<|im_end|>"
    embeddings = 2 * policy.get_input_embeddings().weight.numel()
    assert found.facts["parameters"] == policy.num_parameters()
    assert found.facts["non_embedding_parameters"] == policy.num_parameters() - embeddings


def test_a_chat_template_reaches_the_manifest_and_changes_what_is_trained_and_answered(copy, tmp_path):
    def manifest_of(name, **changes):
        raw = {
            "title": "x",
            "data": {
                "train": {"kind": "arithmetic", "split": "train", "operands": [2, 3], "problems": 10},
                "held": {"kind": "arithmetic", "split": "test", "operands": [2, 3], "problems": 10},
            },
            "validation": "held",
            "models": {"base": {"kind": "hub", "id": "Example/Base", "folder": str(copy), **changes}},
            "methods": {"grpo": {"objective": {"name": "ppo-clip"}}},
            "training": {
                "steps": 1, "prompts": 2, "samples": 2, "updates": 1, "learning_rate": 1e-3, "max_response": 8
            },
            "runs": [{"models": ["base"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1]}],
            "evaluation": {"max_response": 8, "benchmarks": {"easy": {"data": "held", "protocols": ["greedy"]}}},
        }  # fmt: skip
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(raw))
        output = tmp_path / f"results/models/{name}/manifest.json"
        make_model(path, "base", output, tmp_path / "results")
        return path, output

    def fingerprint(path, output):
        run = Plan(load_experiment(path)).run_config("base--train--grpo--s1")
        return training_fingerprint(run, output, path, path)

    path, plain = manifest_of("plain")
    _, templated = manifest_of("templated", chat_template="{{ messages[0]['content'] }}")
    assert manifest.read(plain).chat_template is None
    assert manifest.read(templated).chat_template == "{{ messages[0]['content'] }}"
    assert fingerprint(path, plain) != fingerprint(path, templated)


def test_a_shared_head_counts_once(copy):
    before = sizes(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    after = sizes(copy)
    assert after[1] == before[1]
    assert after[0] < before[0]


def test_without_network_and_copy_it_says_how_to_get_one():
    with pytest.raises(ModelError) as caught:
        fetch(settings(id="Example/NeverDownloaded", revision="v1"))
    message = str(caught.value)
    for part in ("Example/NeverDownloaded at revision v1", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "folder"):
        assert part in message


def test_what_a_folder_lacks_is_named(copy, tmp_path):
    with pytest.raises(ModelError, match="there is no folder"):
        fetch(settings(folder=str(tmp_path / "absent")))
    for shard in copy.glob("*.safetensors"):
        shard.unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer_config\.json, \*\.safetensors"):
        fetch(settings(folder=str(copy)))


def test_a_model_that_transformers_does_not_know_is_an_error(copy):
    (copy / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ModelError, match=r"holds no language model that transformers can load"):
        sizes(copy)
