"""Token records hold what the updates saw."""

import copy
import math

import pandas as pd
import pytest
from training_cases import config_for, trainer_for

from entropy_mechanism.rl.token_records import COLUMNS, read_shards, write_shard


def test_scope_rollout_selects_once_for_all_updates(policy, tmp_path):
    settings = {"name": "kl-cov", "fraction": 0.1, "scope": "rollout", "coefficient": 0}
    config = config_for(settings, filter_groups=False, record_tokens_every=1)
    trainer_for(policy, config, tmp_path / "checkpoints", []).step()
    records = read_shards(tmp_path / "tokens")
    logprob, advantage = records["old_logprob"].to_numpy(float), records["advantage"].to_numpy(float)
    covariance = (logprob - logprob.mean()) * (advantage - advantage.mean())
    highest = covariance.argsort()[::-1][: int(0.1 * len(records))]
    assert sorted(records.index[records["selected"]]) == sorted(highest)
    shares = records.groupby("update")["selected"].mean()
    assert shares[0] != shares[1]  # within each update it would be the same share


@pytest.mark.parametrize("objective", ["ppo-clip", "clip-cov", "kl-cov"])
def test_token_records_hold_what_the_updates_saw(policy, tmp_path, objective):
    rows = []
    config = config_for(objective, record_tokens_every=2, filter_groups=False)
    trainer_for(copy.deepcopy(policy), config, tmp_path / "checkpoints", rows).train()
    records = read_shards(tmp_path / "tokens")
    assert list(records) == list(COLUMNS)
    assert sorted(records["step"].unique()) == [0, 2]
    first = records[records["step"] == 0]
    assert len(first) == round(rows[0]["length/mean"] * 16)
    assert first["update"].value_counts().sort_index().index.tolist() == [0, 1]
    at_start = first[first["update"] == 0]
    assert (at_start["old_logprob"] - at_start["new_logprob"]).abs().max() < 1e-5
    for _, part in records.groupby(["step", "update"]):
        logprob, advantage = part["new_logprob"].to_numpy(float), part["advantage"].to_numpy(float)
        expected = (logprob - logprob.mean()) * (advantage - advantage.mean())
        assert part["covariance"].to_numpy() == pytest.approx(expected, abs=1e-4)
        responses = part.groupby(["prompt", "sample"])
        assert (responses["position"].max() + 1 == responses.size()).all()
        assert responses["advantage"].nunique().max() == 1
    assert rows[0]["entropy/token_mean/after_filter"] == pytest.approx(first["entropy"].mean(), rel=1e-5)
    if objective == "ppo-clip":
        ratio = (first["new_logprob"] - first["old_logprob"]).map(math.exp)
        cut = ((ratio > 1.2) & (first["advantage"] > 0)) | ((ratio < 0.8) & (first["advantage"] < 0))
        assert (first["clipped"] == cut).all()
        assert not first["selected"].any()
    else:
        chosen = first[first["selected"]]
        assert len(chosen) == rows[0]["selection/count"] > 0
        entropy = chosen.groupby("update")["entropy"].mean().mean()  # of the mean over the step's updates
        assert rows[0]["selection/entropy"] == pytest.approx(entropy, rel=1e-5)


def test_token_records_of_another_schema_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("entropy_mechanism.rl.token_records.SCHEMA_VERSION", 99)
    write_shard(tmp_path, 0, [pd.DataFrame(columns=list(COLUMNS))])
    monkeypatch.undo()
    with pytest.raises(ValueError, match="schema 99; this version reads 2"):
        read_shards(tmp_path)
