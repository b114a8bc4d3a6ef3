"""The plan of a training's memory against what torch allocates, and what is refused for it."""

import bisect
import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from random_policies import random_policy
from training_cases import config_for, mini_batch, trainer_for
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import is_flash_attn_2_available

from entropy_mechanism import memory
from entropy_mechanism.config import Compute, ConfigError, HubModel, load_experiment
from entropy_mechanism.models import manifest
from entropy_mechanism.models.load import load_policy, save_policy
from entropy_mechanism.models.tiny import build_tokenizer
from entropy_mechanism.plan import Plan
from entropy_mechanism.rl import logprobs
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.policy import Policy, recompute_activations
from entropy_mechanism.rl.ranks import Ranks
from entropy_mechanism.rl.update import MiniBatch, update
from entropy_mechanism.rollouts.engine import Sampling
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
from entropy_mechanism.shapes import PUBLISHED, Shape, from_config, from_folder
from entropy_mechanism.stages import training
from entropy_mechanism.stages.train import permanent

SMALL = Shape(layers=6, width=256, heads=8, kv_heads=2, feed_forward=1024, vocabulary=12_000)
LARGE = Shape(layers=4, width=512, heads=8, kv_heads=4, feed_forward=2048, vocabulary=16_000, tied=True)
LONGEST = 256
"""Tokens of every sequence, so that micro-batches are full."""


def model_of(shape, attention=None):
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            tie_word_embeddings=shape.tied,
            attn_implementation=attention,
        )
    )


def peak_on_cpu(step):
    """Most bytes that were allocated at once during `step`, above those before it: torch's own count."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    return highest


def step_of(shape, run, device="cpu"):
    """A policy with gradients and moments from a first update, the bytes these take, and a second update."""
    model = model_of(shape, run.compute.attention)
    if run.compute.activation_checkpointing:
        recompute_activations(model)
    policy = Policy(model, run.training.dtype, Ranks(device=torch.device(device)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    rows = 2 * run.training.micro_batch_tokens // LONGEST
    tokens = torch.randint(0, shape.vocabulary, (rows, LONGEST), generator=generator).tolist()
    sequences = Sequences([row[:8] for row in tokens], [row[8:] for row in tokens])
    count = len(sequences.targets_N)
    batch = MiniBatch(sequences, torch.zeros(count), torch.randn(count, generator=generator))

    def step():
        update(policy, optimizer, batch, run, (1,), first=True)

    step()
    held = sum(parameter.numel() * 4 for parameter in model.parameters())
    moments = sum(value.numel() * 4 for state in optimizer.state.values() for value in state.values())
    return step, held, moments


def run_of(**settings):
    compute = Compute(**{"device": "cpu", **settings.pop("compute", {})})
    training = {"micro_batch_tokens": 2048, "logprob_chunk": 256, "max_response": LONGEST}
    return config_for(**training | settings).model_copy(update={"compute": compute})


def sizes_of(run, shape, phase="update"):
    """Bytes of each part of a phase."""
    (found,) = (known for known in memory.estimate(run, shape, 80 * memory.GIB).phases if known.name == phase)
    return {item.name: item.size for item in found.items}


CASES = {
    "small": (SMALL, {}),
    "large": (LARGE, {}),
    "recomputing activations": (SMALL, {"compute": {"activation_checkpointing": True}}),
    "an entropy bonus": (SMALL, {"regularisation": {"entropy": 0.1}}),
    "eager attention": (SMALL, {"compute": {"attention": "eager"}}),
    "half precision": (SMALL, {"dtype": "bfloat16"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_memory_of_an_update_is_what_torch_allocates(name, monkeypatch):
    shape, settings = CASES[name]
    monkeypatch.setattr(memory, "PROMPT_TOKENS", 0)
    run = run_of(**settings)
    step, weights, moments = step_of(shape, run)
    # The gradients of the first update are there before the second and are given back in it.
    found = weights + moments + weights + max(0, peak_on_cpu(step))
    expected = sum(sizes_of(run, shape).values())
    print(f"{name}: {shape.parameters / 1e6:.0f} M parameters, {found / 1e6:.0f} MB, planned {expected / 1e6:.0f}")
    assert expected == pytest.approx(found, rel=0.25)


def test_no_optimiser_of_a_training_needs_memory_for_its_step(tmp_path):
    trainer = trainer_for(random_policy(), config_for(estimator="prime"), tmp_path, [])
    for optimizer in (trainer.optimizer, trainer.reward_model.optimizer):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()  # makes the moments
        before = [weight.detach().clone() for weight in weights]
        found = peak_on_cpu(optimizer.step)
        assert not any(torch.equal(*pair) for pair in zip(before, weights, strict=True))
        assert found < 4 * max(weight.numel() for weight in weights)


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", [False, True])
def test_the_memory_of_an_update_is_what_a_gpu_allocates(recompute, monkeypatch):
    monkeypatch.setattr(memory, "PROMPT_TOKENS", 0)
    shape = Shape(layers=12, width=1024, heads=16, kv_heads=4, feed_forward=4096, vocabulary=151_936)
    compute = {"device": "cuda", "activation_checkpointing": recompute}
    run = run_of(compute=compute, dtype="bfloat16", micro_batch_tokens=16_384)
    step, _, _ = step_of(shape, run, "cuda")
    torch.cuda.reset_peak_memory_stats()
    step()
    found = torch.cuda.max_memory_allocated()
    expected = sum(sizes_of(run, shape).values())
    print(f"{found / 1e9:.2f} GB, planned {expected / 1e9:.2f}")
    assert expected == pytest.approx(found, rel=0.25)


def test_the_memory_of_a_rollout_is_what_torch_allocates(monkeypatch):
    """The transformers engine's copies of weights and cache, when no response stops before its greatest length."""
    monkeypatch.setattr(memory, "PROMPT_TOKENS", 8)
    run = run_of(prompts=16, samples=8, updates=1, max_response=120)
    model = model_of(SMALL).eval()
    engine = TransformersEngine(model, SMALL.vocabulary)
    prompts, seeds = [[i + 1] * 8 for i in range(16)], [list(range(8))] * 16
    found = peak_on_cpu(lambda: engine.generate(prompts, Sampling(1.0, 120, ()), seeds))
    planned = sizes_of(run, SMALL, "rollout")
    expected = sum(planned[name] for name in ("weights in oneDNN's order", "cache", "next tokens"))
    print(f"rollout: {found / 1e6:.0f} MB, planned {expected / 1e6:.0f}")
    assert expected == pytest.approx(found, rel=0.25)


def test_recomputed_activations_give_the_same_bits_and_copies_of_their_own(monkeypatch):
    monkeypatch.setattr(logprobs, "LEAST_SAVED", 2)  # recomputing layers never read prompts once
    gradients = []
    for recompute in (False, True):
        model = random_policy()
        if recompute:
            recompute_activations(model)
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        update(Policy(model), optimizer, mini_batch(random_policy()), config_for("kl-cov"), (1,))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        assert all(parameter.grad is None for parameter in twin.parameters())
        for layer in twin.model.layers:  # a copy must not compute with the layers it was copied from
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
        expected = random_policy()
        for layer in expected.model.layers:
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
        ids = torch.tensor([[2, 3, 4]])
        assert torch.equal(twin(input_ids=ids).logits, expected(input_ids=ids).logits)
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 1e-3


PARAMETERS = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "mistralai/Mistral-Nemo-Base-2407": 12_247_782_400,
    "mistralai/Mistral-Small-24B-Base-2501": 23_572_403_200,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "deepseek-ai/deepseek-math-7b-base": 6_910_365_696,
}
"""As the hub shows them for the weights' files."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_shapes_of_published_models_have_their_parameters(name):
    assert PUBLISHED[name].parameters == pytest.approx(PARAMETERS[name], rel=1e-3)


def test_a_shape_is_read_from_a_models_folder(tmp_path):
    model = model_of(LARGE)
    model.config.save_pretrained(tmp_path)
    assert from_folder(tmp_path) == LARGE
    # Biases of queries, keys and values are left out.
    assert LARGE.parameters == pytest.approx(model.num_parameters(), rel=1e-3)
    with pytest.raises(ValueError, match=r"x/config.json has no 'num_attention_heads'"):
        from_config({"n_head": 12}, "x/config.json")


def sizes(phase="update", shape=SMALL, **settings):
    return sizes_of(run_of(**settings), shape, phase)


def test_states_are_float32_and_shared_out_among_ranks_that_shard():
    bytes_of_all = 4 * SMALL.parameters
    for ranks, sharding, share in ((1, "none", 1), (1, "full", 1), (4, "none", 1), (4, "full", 4)):
        for dtype in ("float32", "bfloat16"):
            found = sizes(dtype=dtype, compute={"ranks": ranks, "sharding": sharding})
            assert found["weights"] == found["gradients"] == bytes_of_all / share
            assert found["Adam's moments"] == 2 * bytes_of_all / share
            assert found.get("DDP's buckets", 0) == (bytes_of_all if (ranks, sharding) == (4, "none") else 0)
    offloaded = sizes(compute={"ranks": 4, "sharding": "full", "offload": "cpu"})
    assert not {"weights", "gradients", "Adam's moments"} & offloaded.keys()
    assert "activations" in offloaded


def test_further_models_of_a_method_are_counted():
    size = 4 * SMALL.parameters
    assert "reference" not in sizes()
    assert sizes(regularisation={"reference_kl": 0.1})["reference"] == size
    prime = sizes(estimator="prime")
    assert prime["weights"] == prime["gradients"] == 2 * size
    assert prime["Adam's moments"] == 4 * size
    assert prime["PRIME's reference"] == size
    full = {"name": "kl-cov", "fraction": 0.2, "penalty": "full"}
    assert sizes(objective=full)["weights that sampled"] == size
    assert sizes(objective=full)["distributions of the full KL"] == 16 * 410 * SMALL.vocabulary


def test_vllm_takes_its_share_and_the_transformers_engine_a_whole_copy():
    sharded = {"ranks": 4, "sharding": "full"}
    assert sizes("rollout", compute=sharded)["engine's weights"] == 4 * SMALL.parameters
    vllm = sharded | {"engine": "vllm", "vllm_memory": 0.25}
    assert "engine's weights" not in sizes("rollout", compute=vllm)
    ordered = "weights in oneDNN's order"
    assert ordered in sizes("rollout")
    assert ordered not in sizes("rollout", dtype="bfloat16")
    assert ordered not in sizes("rollout", compute={"device": "cuda"})
    run = run_of(compute=vllm)
    update_, rollout = memory.estimate(run, SMALL, 80 * memory.GIB).phases
    assert (update_.reserved, rollout.reserved) == (0, 20 * memory.GIB)
    assert memory.misfit(run, SMALL, 80 * memory.GIB) is None


def test_what_cannot_fit_is_refused_with_its_largest_parts_and_advice():
    run = run_of(compute={"device": "cuda"})
    needed = memory.estimate(run, SMALL).highest.needed
    memory.check(run, SMALL, needed)
    with pytest.raises(memory.DoesNotFit, match=r"test: its update needs .* activations .*_checkpointing"):
        memory.check(run, SMALL, needed - 1)
    vllm = run_of(compute={"device": "cuda", "ranks": 32, "sharding": "full", "engine": "vllm", "vllm_memory": 0.3,
                           "activation_checkpointing": True})  # fmt: skip
    with pytest.raises(memory.DoesNotFit, match=r"share of a GPU is 24.0 GiB, and its part of .*weights.* 122.1"):
        memory.check(vllm, PUBLISHED["Qwen/Qwen2.5-32B"], 80 * memory.GIB)


class Loaded(Exception):
    """The training has come to its weights."""


def stop_here(*arguments, **settings):
    raise Loaded(settings)


def base_model(folder):
    """The manifest of a random base model."""
    tokenizer, model = build_tokenizer(), random_policy()
    model.resize_token_embeddings(len(tokenizer))
    save_policy(model, tokenizer, folder / "model")
    manifest.write(folder / "model/manifest.json", folder / "model", {})
    return folder / "model/manifest.json"


@pytest.mark.parametrize("fits", [False, True])
def test_training_looks_at_its_gpu_before_it_loads_the_weights(fits, tmp_path, monkeypatch):
    base = base_model(tmp_path)
    monkeypatch.setattr(training, "load_policy", stop_here)
    needed = memory.estimate(run_of(), from_folder(tmp_path / "model")).highest.needed
    monkeypatch.setattr(training, "_gpu_bytes", lambda device: needed + (fits or -1))
    monkeypatch.setattr(training, "questions", lambda *arguments: [])
    with pytest.raises(Loaded if fits else memory.DoesNotFit) as raised:
        training.train_run(run_of(), "", base, tmp_path, tmp_path, tmp_path, stop=None)
    # Nothing about the run is wrong: on another machine, or with another `compute`, it goes on.
    assert not permanent(raised.value)


@pytest.mark.parametrize("gpu", ["stand-in", pytest.param("real", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("fits", [False, True])
def test_a_run_is_measured_against_the_memory_of_the_gpu_that_is_there(gpu, fits, tmp_path, monkeypatch):
    """The largest micro-batch that fits into it is begun, one more token is refused."""
    if gpu == "stand-in":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        there = SimpleNamespace(total_memory=24 * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: there)
    total = torch.cuda.get_device_properties(torch.device("cuda")).total_memory
    base = base_model(tmp_path)
    shape = from_folder(tmp_path / "model")

    def asking(tokens):
        return run_of(compute={"device": "cuda"}, micro_batch_tokens=tokens)

    largest = bisect.bisect_right(
        range(1, 10**9), total, key=lambda tokens: memory.estimate(asking(tokens), shape).highest.needed
    )
    monkeypatch.setattr(training, "load_policy", stop_here)
    monkeypatch.setattr(training, "questions", lambda *arguments: [])
    with pytest.raises(
        Loaded if fits else memory.DoesNotFit, match=None if fits else f"a GPU has {total / 2**30:.1f}"
    ):
        training.train_run(asking(largest + (not fits)), "", base, tmp_path, tmp_path, tmp_path, stop=None)


@pytest.mark.parametrize("recompute", [False, True])
def test_training_reads_with_the_attention_and_recomputation_of_its_settings(recompute, tmp_path, monkeypatch):
    read = []

    def note(model, *arguments, **settings):
        read.append((model.config._attn_implementation, model.model.layers[0].forward))
        raise Loaded

    compute = {"attention": "eager", "activation_checkpointing": recompute}
    monkeypatch.setattr(training, "TransformersEngine", note)
    monkeypatch.setattr(training, "questions", lambda *arguments: [])
    with pytest.raises(Loaded):
        training.train_run(
            run_of(compute=compute), "", base_model(tmp_path), tmp_path, tmp_path, tmp_path, stop=None
        )
    ((attention, forward),) = read
    assert attention == "eager"
    assert ("checkpoint" in repr(forward)) == recompute


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed")
def test_an_attention_that_is_not_installed_is_named(tmp_path):
    base_model(tmp_path)
    with pytest.raises(ValueError, match=r"compute.attention: flash_attention_2 cannot be used: .* Take sdpa"):
        load_policy(tmp_path / "model", attention="flash_attention_2")


PAPER = Path(__file__).parents[2] / "config/experiments/paper.yaml"


@pytest.mark.parametrize("gib", [80, 48])
def test_the_papers_runs_fit_on_their_nodes_and_smaller_gpus_are_refused(gib, tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text(PAPER.read_text().replace("gpu_gib: 80", f"gpu_gib: {gib}"))
    plan = Plan(load_experiment(path))
    if gib == 80:
        memory.check_plan(plan)
        assert {plan.run_config(name).compute.ranks for name in plan.runs} == {8, 16, 32}
    else:
        with pytest.raises(memory.DoesNotFit, match=r"qwen2.5-32b--eurus2-math--grpo--s1: its update needs"):
            memory.check_plan(plan)


def test_shapes_are_known_before_the_download_where_they_can_be(tmp_path):
    model_of(SMALL).config.save_pretrained(tmp_path)
    known = [("Qwen/Qwen2.5-7B", None, PUBLISHED["Qwen/Qwen2.5-7B"]), ("Some/Model", None, None)]
    known += [("Some/Model", str(tmp_path), SMALL), ("Some/Model", str(tmp_path / "missing"), None)]
    for name, folder, expected in known:
        assert memory.known_shape(HubModel(kind="hub", id=name, folder=folder)) == expected


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ({"offload": "cpu"}, "offload.*sharding 'full' and several ranks"),
        ({"offload": "cpu", "sharding": "full"}, "offload.*several ranks"),
        ({"attention": "flash_attention_2", "device": "cpu"}, "attention.*sdpa, eager"),
        ({"attention": "flash_attention_2", "device": "cuda"}, "attention.*with device cuda and training.dtype"),
        ({"attention": "flash_attention_2"}, "attention.*device cpu and dtype float32 of method"),
        ({"ranks": 4, "tensor_parallel": 3, "engine": "vllm"}, "tensor_parallel.*divisors of ranks"),
        ({"vllm_memory": 0.5}, "vllm_memory.*for engine vllm"),
    ],
)
def test_compute_that_cannot_be_is_refused(compute, message, tmp_path):
    import yaml

    experiment = yaml.safe_load((PAPER.parent / "smoke.yaml").read_text())
    model = experiment["runs"][0]["models"][0]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(experiment | {"compute": {model: compute}}))
    with pytest.raises(ConfigError, match=f"compute.{model}.{message}"):
        load_experiment(tmp_path / "mine.yaml")
