"""What jobs ask of a cluster."""

import subprocess

import pytest
from training_cases import config_for

from entropy_mechanism import resources
from entropy_mechanism.config import Compute
from entropy_mechanism.shapes import PUBLISHED

SEVEN = PUBLISHED["Qwen/Qwen2.5-7B"]


def run_with(**compute):
    config = config_for("kl-cov", dtype="bfloat16")
    return config.model_copy(update={"compute": Compute(**compute)})


def test_a_training_asks_for_the_gpus_of_its_nodes_and_one_launcher_on_each():
    run = run_with(device="cuda", ranks=16, nodes=2, sharding="full", engine="vllm", tensor_parallel=2)
    found = resources.training(run, SEVEN, "a100")
    assert (found.nodes, found.gres, found.cores) == (2, "gpu:a100:8", 64)
    expected = 12 * SEVEN.parameters + 4 * 2 * SEVEN.parameters + (8 * 3 + 1) * 2**30
    assert 0 <= found.mem_mb - expected / 2**20 < 1
    started = resources.launcher(found.nodes, found.cores, found.gres)
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=64 --gres=gpu:a100:8 " in started


def test_one_node_needs_no_launcher_and_cpus_no_gpus():
    found = resources.training(run_with(device="cpu", ranks=2), None)
    assert (found.nodes, found.gres, found.cores) == (1, None, 2)
    assert resources.launcher(found.nodes, found.cores, found.gres) == ""
    assert found.mem_mb == (2 * 3 + 1) * 1024
    assert resources.training(run_with(device="cuda"), None).gres == "gpu:1"


def test_sampling_asks_for_a_gpu_for_each_part_of_an_engine():
    compute = Compute(device="cuda", ranks=32, nodes=4, engine="vllm", tensor_parallel=4)
    found = resources.sampling(compute, SEVEN)
    assert (found.nodes, found.gres) == (1, "gpu:4")
    assert 0 <= found.mem_mb - (4 * SEVEN.parameters + (4 * 3 + 1) * 2**30) / 2**20 < 1
    found = resources.sampling(Compute(device="cpu"), SEVEN)
    assert 0 <= found.mem_mb - (8 * SEVEN.parameters + (3 + 1) * 2**30) / 2**20 < 1


def test_main_memory_is_read_once_where_weights_are_sharded():
    """Nothing of the weights rests where no checkpoint is written; without sharding every rank reads them."""
    vllm = {"engine": "vllm", "tensor_parallel": 4}
    asleep = 2 * SEVEN.parameters
    sharded = run_with(device="cuda", ranks=8, nodes=2, sharding="full", **vllm)
    processes = 4 * 3 * 2**30
    assert resources.host_bytes(sharded, SEVEN, False) == pytest.approx(asleep + processes)
    whole = run_with(device="cuda", ranks=8, nodes=2)
    assert resources.host_bytes(whole, SEVEN, False) == pytest.approx(4 * 4 * SEVEN.parameters + processes)
    offloaded = run_with(device="cuda", ranks=8, nodes=2, sharding="full", offload="cpu", **vllm)
    assert resources.host_bytes(offloaded, SEVEN, False) == pytest.approx(
        8 * SEVEN.parameters + asleep + processes
    )


def test_every_rank_reads_the_whole_copy_of_the_transformers_engine():
    """Where nothing else is in main memory then: on node 0 the policy, too, which one rank reads for all."""
    whole, processes = 4 * SEVEN.parameters, 4 * 3 * 2**30
    run = run_with(device="cuda", ranks=8, nodes=2, sharding="full")
    assert resources.host_bytes(run, SEVEN, False) == pytest.approx(4 * whole + processes)
    assert resources.host_bytes(run, SEVEN, True) == pytest.approx(5 * whole + processes)


def test_frozen_copies_lie_in_main_memory_where_shares_do():
    offloaded = run_with(device="cuda", ranks=8, nodes=2, sharding="full", offload="cpu", engine="vllm")
    plain = resources.host_bytes(offloaded, SEVEN, False)
    share = 4 * SEVEN.parameters / 2
    for changes, copies in (
        ({"regularisation": {"reference_kl": 0.1}}, 1),
        ({"objective": {"name": "kl-cov", "penalty": "full"}}, 1),
        ({"estimator": "prime"}, 4 + 1),
    ):
        run = config_for(**{"objective": "kl-cov", "dtype": "bfloat16"} | changes)
        run = run.model_copy(update={"compute": offloaded.compute})
        assert resources.host_bytes(run, SEVEN, False) == pytest.approx(plain + copies * share)


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 54), (10, 540), (49, 2646), (50, 2700), (1440, 86100)])
def test_the_deadline_of_a_job_leaves_a_tenth_of_its_time_or_five_minutes(minutes, seconds):
    """The shell's arithmetic in rules/common.smk."""
    from pathlib import Path

    rules = (Path(__file__).parents[2] / "rules/common.smk").read_text()
    start = rules.index("    'time_limit()")
    lines = rules[start : rules.index('    f"export', start)]
    function = "".join(eval(line) for line in lines.splitlines()).replace("{{", "{").replace("}}", "}")
    for job, expected in (("7", f"--deadline-seconds {seconds}\n"), ("", "")):
        script = f"set -euo pipefail; export SLURM_JOB_ID={job}; {function} time_limit {minutes}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == expected
