"""What makes a node unfit for a training of several nodes, and what its report says."""

from pathlib import Path

import pytest
from training_cases import config_for

from entropy_mechanism.config import Compute
from entropy_mechanism.resources import host_bytes, training
from entropy_mechanism.shapes import PUBLISHED
from entropy_mechanism.stages import health
from entropy_mechanism.stages.health import faults

INPUTS = {"config": Path("run.yaml"), "model": Path("manifest.json"), "train_set": Path("t.parquet")}
GOOD = {
    "host": "a",
    "code": "1",
    "packages": {"python": "3.11", "torch": "2.13.0"},
    "inputs": {"config": "c", "model": "m", "train_set": "t"},
    "weights": {"model.safetensors": 10},
    "memory": 500e9,
    "disk": 1e12,
    "gpus": [(80 * 2**30, 79 * 2**30)] * 8,
    "sees_store": True,
}


def wrong(monkeypatch, run, *changes, shape=None):
    monkeypatch.setattr(health, "_shape", lambda model: shape)
    return faults([GOOD | change for change in changes], run, INPUTS, Path("store"))


def run_with(**compute):
    config = config_for("kl-cov", dtype="bfloat16", max_response=8192, micro_batch_tokens=32768)
    return config.model_copy(update={"compute": Compute(**compute)})


SEVEN = {"device": "cuda", "ranks": 16, "nodes": 2, "sharding": "full", "engine": "vllm", "vllm_memory": 0.5,
         "activation_checkpointing": True}  # fmt: skip


def test_equal_machines_are_fit(monkeypatch):
    assert wrong(monkeypatch, run_with(**SEVEN), {}, {}, shape=PUBLISHED["Qwen/Qwen2.5-7B"]) == [[], []]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sees_store": False}, "does not see the store"),
        ({"invalid": "m.json: not valid JSON"}, "m.json: not valid JSON"),
        ({"inputs": GOOD["inputs"] | {"train_set": "other"}}, "t.parquet is other, on node 0 t;"),
        ({"inputs": GOOD["inputs"] | {"train_set": None}}, "t.parquet is missing, on node 0 t;"),
        ({"weights": {}}, "model.safetensors"),
        ({"code": "2"}, "runs other code"),
        ({"packages": {"python": "3.11", "torch": "2.12.0"}}, "has torch 2.12.0, node 0 has 2.13.0"),
        ({"gpus": GOOD["gpus"][:4]}, "has 4 GPUs for 8 ranks"),
        ({"gpus": [*GOOD["gpus"][:7], (80 * 2**30, 20 * 2**30)]}, "GPU 7 has 20 of 80 GiB free and"),
        ({"memory": 20e9}, "has 19 GiB of main memory left and"),
    ],
)
def test_each_fault_of_a_node_is_told_with_it(monkeypatch, change, expected):
    found = wrong(monkeypatch, run_with(**SEVEN), {}, change, shape=PUBLISHED["Qwen/Qwen2.5-7B"])
    assert found[0] == []
    (line,) = found[1]
    assert expected in line


def test_room_for_a_checkpoint_is_asked_of_node_0(monkeypatch):
    shape = PUBLISHED["Qwen/Qwen2.5-7B"]
    first, second = wrong(monkeypatch, run_with(**SEVEN), {"disk": 1e9}, {"disk": 1e9}, shape=shape)
    assert "make room" in first[0]
    assert second == []


def test_what_cannot_be_found_out_refuses_nothing(monkeypatch):
    unknown = {"gpus": None, "memory": None}
    assert wrong(monkeypatch, run_with(**SEVEN), unknown, unknown) == [[], []]


def test_main_memory_of_the_papers_nodes():
    """32B: checkpoints hold 12 bytes a weight on node 0; other nodes hold vLLM's sleeping weights alone."""
    shape = PUBLISHED["Qwen/Qwen2.5-32B"]
    run = run_with(**SEVEN | {"ranks": 32, "nodes": 4, "tensor_parallel": 4})
    sleeping, processes = 2 * 2 * shape.parameters, 8 * 3 * 2**30
    assert host_bytes(run, shape, True) == pytest.approx(12 * shape.parameters + sleeping + processes)
    assert host_bytes(run, shape, False) == pytest.approx(sleeping + processes)


def test_the_report_of_this_machine_is_complete(tmp_path):
    (tmp_path / "run.yaml").write_text("a")
    inputs = {"config": tmp_path / "run.yaml", "model": tmp_path / "none.json"}
    found = health.report(inputs, tmp_path / "not" / "yet")
    assert found.keys() | {"sees_store"} == GOOD.keys()
    assert found["inputs"] == {"config": "ca978112ca1bbdca", "model": None}
    assert found["memory"] > 0
    assert found["disk"] > 0


@pytest.mark.parametrize(
    ("line", "file", "unlimited"),
    [("0::/slurm/job_7/step_0", "memory.max", "max"),
     ("4:memory:/slurm/job_7/step_0", "memory/memory.limit_in_bytes", "9223372036854771712")],
)  # fmt: skip
def test_the_jobs_limit_of_memory_counts_wherever_above_it_stands(tmp_path, line, file, unlimited):
    own, root, file = tmp_path / "own", tmp_path / "cgroup", Path(file)
    own.write_text(f"9:cpuset:/elsewhere\n{line}\n")
    for place, limit in (("slurm", unlimited), ("slurm/job_7", "1000000"), ("slurm/job_7/step_0", unlimited)):
        (root / file.parent / place).mkdir(parents=True)
        (root / file.parent / place / file.name).write_text(f"{limit}\n")
    assert min(health._cgroup_limits(own, root)) == 1e6
    assert health._cgroup_limits(tmp_path / "none", root) == []


def test_a_node_with_the_memory_that_its_job_asked_for_is_fit(monkeypatch):
    for model in ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-32B", "Qwen/Qwen2.5-0.5B"):
        run, shape = run_with(**SEVEN), PUBLISHED[model]
        asked = {"memory": training(run, shape).mem_mb * 2.0**20, "disk": 1e13}
        assert wrong(monkeypatch, run, asked, asked, shape=shape) == [[], []]


def test_room_for_two_trained_models_is_asked_for_with_prime(monkeypatch):
    shape = PUBLISHED["Qwen/Qwen2.5-7B"]
    run = run_with(**SEVEN)
    prime = run.model_copy(update={"advantage": run.advantage.model_copy(update={"estimator": "prime"})})
    room = {"disk": 20.0 * shape.parameters, "memory": 1e15, "gpus": None}
    assert wrong(monkeypatch, run, room, room, shape=shape)[0] == []
    assert "make room" in wrong(monkeypatch, prime, room, room, shape=shape)[0][0]
