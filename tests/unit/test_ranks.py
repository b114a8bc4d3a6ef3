"""Two ranks on the CPU (gloo) train as one does: DDP and FSDP2, updates, whole runs, checkpoints of either."""

import os
import shutil
import subprocess
import sys

import pytest
import rank_cases
import torch

from entropy_mechanism.config import Compute
from entropy_mechanism.rl import logprobs
from entropy_mechanism.rl.errors import DeviceError, PermanentError
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.ranks import Ranks, join
from entropy_mechanism.rl.token_records import read_shards
from entropy_mechanism.stages.launch import free_port
from entropy_mechanism.stages.train import permanent

ALONE = Ranks()


@pytest.fixture(scope="module", params=rank_cases.PLACES)
def place(request):
    """Where two ranks keep the weights. One rank reads as they do: sharded layers take whole rows, always."""
    with pytest.MonkeyPatch.context() as patch:
        if rank_cases.PLACES[request.param]["sharding"] == "full":
            patch.setattr(logprobs, "LEAST_SAVED", 2)
        yield request.param


@pytest.fixture(scope="module")
def read_alone():
    """What `alone` gives, by layout."""
    return {}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, place, read_alone):
    """The folder and the results of one rank."""
    if logprobs.LEAST_SAVED not in read_alone:
        folder = tmp_path_factory.mktemp("alone")
        read_alone[logprobs.LEAST_SAVED] = folder, rank_cases.all_cases(ALONE, "none", folder)
    return read_alone[logprobs.LEAST_SAVED]


@pytest.fixture(scope="module")
def together(tmp_path_factory, place, alone):
    """The folder and the results of two ranks with this sharding, and the sharding."""
    folder = tmp_path_factory.mktemp("together")
    rank_cases.whole_run("prime with a reference", ALONE, "none", folder / "begun by one", steps=2)
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    program = [sys.executable, rank_cases.__file__, place, str(folder)]
    ranks = [
        subprocess.Popen(program, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return folder, torch.load(folder / "results.pt", weights_only=False), place


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)


def same_metrics(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.startswith(("time/", "throughput/")) and value is not None:
            assert found[name] == pytest.approx(value, rel=1e-3, abs=2e-6, nan_ok=True), name


@pytest.mark.parametrize("name", rank_cases.UPDATES)
def test_two_ranks_select_the_same_tokens_and_make_the_same_update(alone, together, name):
    expected, found = alone[1]["update", name], together[1]["update", name]
    assert torch.equal(found["selected"], expected["selected"])
    if "cov" in name or "selection" in name:
        assert 0 < int(found["selected"].sum()) < len(found["selected"])
    close(found["logprob"], expected["logprob"])
    close(found["weights"], expected["weights"])
    same_metrics(found["metrics"], expected["metrics"])
    assert found["metrics"]["policy/skipped_updates"] == (name == "not finite")


def test_two_ranks_train_the_same_reward_model(alone, together):
    expected, found = alone[1]["reward model"], together[1]["reward model"]
    same_metrics(found["metrics"], expected["metrics"])
    close(found["rewards"], expected["rewards"])
    assert expected["rewards"].abs().max() > 1e-3


@pytest.mark.parametrize("name", rank_cases.RUNS)
def test_a_run_on_two_ranks_is_the_run_on_one(alone, together, name):
    expected, found = alone[1]["run", name], together[1]["run", name]
    assert len(found["rows"]) == len(expected["rows"]) == 5
    assert all(abs(row["entropy_change/predicted"]) > 1e-3 for row in expected["rows"][:4])
    for row, other in zip(found["rows"], expected["rows"], strict=True):
        same_metrics(row, other)
    torch.testing.assert_close(found["weights"], expected["weights"], atol=1e-4, rtol=1e-3)
    records, others = (read_shards(folder / name / "tokens") for folder in (together[0], alone[0]))
    columns = ["step", "update", "prompt", "sample", "position", "token", "selected", "clipped"]
    assert records[columns].equals(others[columns])


def test_ranks_go_on_from_a_checkpoint_of_one(alone, together):
    expected, found = alone[1]["run", "prime with a reference"], together[1]["resumed"]
    assert found["first"] == 2
    torch.testing.assert_close(found["weights"], expected["weights"], atol=1e-4, rtol=1e-3)


def test_one_goes_on_from_a_checkpoint_of_ranks(alone, together, tmp_path):
    name = "prime with a reference"
    shutil.copytree(together[0] / name, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-000004")
    found = rank_cases.whole_run(name, ALONE, "none", tmp_path / "run")
    assert found["first"] == 2
    torch.testing.assert_close(found["weights"], alone[1]["run", name]["weights"], atol=1e-4, rtol=1e-3)


def test_sharded_weights_are_shared_out(together):
    folder, _, sharding = together
    shards = [int(path.read_text()) for path in sorted(folder.glob("held-*"))]
    total = sum(parameter.numel() for parameter in rank_cases.random_policy().parameters())
    if sharding != "none":
        assert sum(shards) == total
        assert max(shards) < 0.6 * total
    else:
        assert shards == [total, total]


def test_shares_rest_in_main_memory_where_asked(together):
    place = rank_cases.PLACES[together[2]]
    if place["sharding"] == "full":
        assert together[1]["offloaded"] == [place.get("offload") == "cpu"] * 2


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_refused(policy, half):
    with pytest.raises(ValueError, match="training needs float32 weights"):
        Policy(policy.to(half))


def test_share_gives_every_rank_equally_many_and_every_item_once():
    for size in (1, 2, 3, 5):
        for items in range(8):
            shares = [Ranks(index, size).share(list(range(items)), -1) for index in range(size)]
            assert len(set(map(len, shares))) == 1
            assert sorted(item for share in shares for item in share if item >= 0) == list(range(items))


def test_another_number_of_ranks_than_asked_for_is_refused(monkeypatch):
    with (
        pytest.raises(PermanentError, match="1 ranks were started and `compute` asks for 3"),
        join(Compute(device="cpu", ranks=3)),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named_and_another_machine_may_have_it():
    with (
        pytest.raises(DeviceError, match="no GPU: `compute` asks for device cuda") as caught,
        join(Compute(device="cuda")),
    ):
        pass
    assert not permanent(caught.value)


def test_more_ranks_than_gpus_are_refused_and_another_machine_may_have_more(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 7)
    with (
        pytest.raises(DeviceError, match="8 ranks were started on this machine, which has 7 GPUs") as caught,
        join(Compute(device="cuda", ranks=8)),
    ):
        pass
    assert not permanent(caught.value)
