"""Covariances from token records are those of the training, and records that are missing are named."""

import copy
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from training_cases import QUESTIONS, config_for, weights, without_times

from entropy_mechanism import files
from entropy_mechanism.analysis.covariance_levels import step_levels
from entropy_mechanism.analysis.token_covariances import read_step, step_covariances
from entropy_mechanism.models import manifest
from entropy_mechanism.rewards.math import Outcome
from entropy_mechanism.rl.loop import Hooks, Trainer
from entropy_mechanism.rl.token_records import read_shards, shard_path, write_shard
from entropy_mechanism.rollouts.engine import Completion
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
from entropy_mechanism.stages.token_covariances import token_covariances


def grade_even(completions, answers):
    """Right when there is a first token and it is even."""
    right = [bool(c.token_ids) and c.token_ids[0] % 2 == 0 for c in completions]
    return [Outcome.CORRECT if value else Outcome.WRONG for value in right]


class Silent(TransformersEngine):
    """An engine whose policy says nothing in every third response, and nothing at all to every fourth prompt."""

    def generate(self, prompts, sampling, seeds):
        groups = super().generate(prompts, sampling, seeds)
        nothing = Completion([], [], "stop")
        return [
            [nothing if p % 4 == 3 or (p + s) % 3 == 0 else answer for s, answer in enumerate(group)]
            for p, group in enumerate(groups)
        ]


class Run:
    """A finished training in a store, with the files that the stage reads."""

    def __init__(self, policy, config, folder, engine=TransformersEngine, grader=grade_even, questions=QUESTIONS):
        self.folder, self.config, self.rows = folder, config, []
        self.store = folder / "store"
        self.home = self.store / "0123456789abcdef"
        self.tokens = self.home / "tokens"
        hooks = Hooks(row=self.rows.append, stop=lambda: False, warn=print)
        places = (questions, questions[:5], (1,), self.home / "checkpoints", hooks)
        Trainer(config, policy, engine(policy, 40), grader, *places).train()
        (self.home / "final").mkdir()
        files.write_text(folder / "run.yaml", yaml.safe_dump(config.model_dump(mode="json")))
        files.write_parquet(folder / "metrics.parquet", pd.DataFrame(self.rows))
        manifest.write(folder / "manifest.json", self.home / "final", {"fingerprint": self.home.name})

    def covariances(self):
        inputs = [self.folder / name for name in ("run.yaml", "metrics.parquet", "manifest.json")]
        outputs = [self.folder / f"{name}.parquet" for name in ("token_covariances", "covariance_levels")]
        token_covariances(*inputs, store=self.store, outputs=outputs, results=self.folder)
        self.levels = pd.read_parquet(outputs[1])
        return pd.read_parquet(outputs[0])

    def logged(self, step):
        return {name: value for name, value in self.rows[step].items() if name.startswith("covariance/")}


RUNS = {
    "on-policy": ("policy-gradient", {"updates": 1}, TransformersEngine),
    "four updates": ("kl-cov", {"updates": 4}, TransformersEngine),
    "advantages within a response": ("ppo-clip", {"estimator": "prime"}, TransformersEngine),
    "empty responses": ("ppo-clip", {"filter_groups": False}, Silent),
    "empty responses and PRIME": ("ppo-clip", {"filter_groups": False, "estimator": "prime"}, Silent),
    "several micro-batches": ("clip-cov", {"micro_batch_tokens": 20}, TransformersEngine),
}


@pytest.mark.parametrize("case", RUNS)
def test_covariances_from_token_records_are_those_that_the_training_logged(policy, tmp_path, case):
    objective, changes, engine = RUNS[case]
    run = Run(policy, config_for(objective, record_tokens_every=1, **changes), tmp_path, engine)
    frame = run.covariances()
    assert list(frame)[:7] == ["run", "model", "train_set", "method", "seed", "updates_per_rollout", "step"]
    assert frame["step"].tolist() == [0, 1, 2, 3]  # the last version is measured and not trained
    assert (frame["run"] == "test").all()
    for step, row in frame.set_index("step").iterrows():
        found = row.filter(like="covariance/").dropna().to_dict()
        assert found == pytest.approx(run.logged(step), rel=1e-5, abs=1e-6)
    common = ["run", "model", "train_set", "method", "seed", "updates_per_rollout", "step"]
    assert run.levels[common].equals(frame[common])
    levels = {"token": "covariance/mean", "action": "covariance/response"}
    for level, name in levels.items():
        assert run.levels[level].to_numpy() == pytest.approx(frame[name].to_numpy(), abs=1e-12)
    records = read_shards(run.tokens)
    if "PRIME" in case or "within" in case:
        assert records.groupby(["step", "group", "sample"])["advantage"].nunique().max() > 1
    if "empty" in case:
        assert len(records.groupby(["step", "group", "sample"])) < 4 * 16
        assert records["group"].max() == 2  # the fourth prompt of a step got nothing but empty responses


def test_records_are_of_the_steps_asked_for_and_a_run_without_has_an_empty_frame(policy, tmp_path):
    third = Run(copy.deepcopy(policy), config_for(record_tokens_every=3), tmp_path / "third").covariances()
    assert third["step"].tolist() == [0, 3]
    none = Run(policy, config_for(), tmp_path / "none").covariances()
    assert len(none) == 0
    always = [name for name in third if not name.startswith("covariance/response_accuracy")]
    assert list(none) == always
    assert none.dtypes.to_dict() == third[always].dtypes.to_dict()


def test_recording_tokens_changes_nothing_else(policy, tmp_path):
    found = []
    for every in (0, 1):
        model = copy.deepcopy(policy)
        run = Run(model, config_for("kl-cov", record_tokens_every=every), tmp_path / str(every))
        found.append((without_times(run.rows), weights(model).tolist()))
    assert found[0] == found[1]


def test_a_step_without_a_kept_group_has_no_records_and_none_are_missed(policy, tmp_path):
    calls = []

    def grader(completions, answers):
        """As `grade_even`, but all responses of the second step are wrong; validation has five problems."""
        if len(completions) == 5:
            return grade_even(completions, answers)
        calls.append(len(completions))
        return [Outcome.WRONG] * len(completions) if len(calls) == 2 else grade_even(completions, answers)

    run = Run(policy, config_for(record_tokens_every=1, max_batches=1), tmp_path, grader=grader)
    assert [row["rollout/kept_groups"] > 0 for row in run.rows[:4]] == [True, False, True, True]
    assert run.covariances()["step"].tolist() == [0, 2, 3]


def test_records_that_are_gone_or_damaged_are_named_with_what_to_do(policy, tmp_path):
    run = Run(policy, config_for(record_tokens_every=1, filter_groups=False), tmp_path)
    path = shard_path(run.tokens, 2)
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(
        ValueError, match=r"1 files .*tokens are missing \(step 2\).*Delete .*0123456789abcdef and "
    ):
        run.covariances()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"step-000002.parquet cannot be read.*Delete .*manifest.json and run"):
        run.covariances()
    path.write_bytes(whole)
    assert len(run.covariances()) == 4
    shutil.rmtree(run.tokens)
    with pytest.raises(ValueError, match=r"4 files .* \(step 0, 1, 2, 3\)"):
        run.covariances()


def test_records_of_another_schema_are_refused_with_what_to_do(policy, tmp_path, monkeypatch):
    run = Run(policy, config_for(record_tokens_every=1, filter_groups=False), tmp_path)
    first = read_shards(run.tokens).query("step == 0")
    monkeypatch.setattr("entropy_mechanism.rl.token_records.SCHEMA_VERSION", 1)
    write_shard(run.tokens, 0, [first])
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"schema 1; this version reads 2\. Delete "):
        run.covariances()


def test_a_prompt_drawn_twice_in_a_step_is_two_groups(policy, tmp_path):
    config = config_for(record_tokens_every=1, filter_groups=False)
    run = Run(policy, config, tmp_path, questions=QUESTIONS[:5])  # four of five a step: an epoch ends within
    records = read_shards(run.tokens)
    assert records.groupby("step")["group"].nunique().tolist() == [4] * 4
    assert records.groupby("step")["prompt"].nunique().min() < 4
    by_group = records.drop_duplicates(["step", "group", "sample"])
    assert by_group.groupby(["step", "group"])["prompt"].nunique().max() == 1
    for step, row in run.covariances().set_index("step").iterrows():
        assert row["covariance/response"] == pytest.approx(run.logged(step)["covariance/response"], abs=2e-5)


def records_of(*tokens):
    """Records of (group, sample, position, old_logprob, reward, advantage)."""
    columns = ("group", "sample", "position", "old_logprob", "reward", "advantage")
    return pd.DataFrame(tokens, columns=columns).astype({"old_logprob": "float32", "reward": "float32"})


def test_step_covariances_are_the_papers_formulas():
    records = records_of(
        (0, 0, 0, -1.0, 1.0, 0.5),
        (0, 0, 1, -3.0, 1.0, 0.5),
        (0, 1, 0, -0.5, 0.0, -0.5),
        (1, 1, 0, -0.2, 1.0, 2.0),  # response (1, 0) is empty
    )
    step = read_step(records, groups=3, group_size=2)
    found, levels = step_covariances(step), step_levels(step)
    logprob, advantage = records["old_logprob"].to_numpy(float), records["advantage"].to_numpy()
    tokens = (logprob - logprob.mean()) * (advantage - advantage.mean())
    assert found["covariance/mean"] == pytest.approx(tokens.mean())
    assert found["covariance/top_0.5"] == pytest.approx(np.sort(tokens)[-2:].mean())

    def response(means, advantages):
        means = np.array(means)
        weighted = np.exp(means) * advantages
        return ((means - means.mean()) * (weighted - weighted.mean())).mean()

    one, two = response([-2.0, -0.5], [0.5, -0.5]), response([0.0, -0.2], [0.0, 2.0])
    assert found["covariance/response_accuracy_0.5"] == pytest.approx((one + two) / 2)
    assert found["covariance/response_accuracy_0"] == 0  # the third group is empty altogether
    assert found["covariance/response"] == pytest.approx((one + two) / 3)

    assert levels["token"] == pytest.approx(tokens.mean())
    assert levels["token_accuracy_0.5"] == pytest.approx(tokens.mean())
    assert "token_accuracy_0" not in levels  # its responses are empty
    assert levels["action"] == levels["action_accuracy_0.5"] * 2 / 3 == found["covariance/response"]

    def plain(means, advantages):
        return ((np.array(means) - np.mean(means)) * (np.array(advantages) - np.mean(advantages))).mean()

    pairs = plain([-2.0, -0.5], [0.5, -0.5]) + plain([0.0, -0.2], [0.0, 2.0])
    assert levels["sequence"] == pytest.approx(pairs / 3)
    assert levels["sequence_accuracy_0.5"] == pytest.approx(pairs / 2)
    assert levels["sequence_accuracy_0"] == 0


def test_records_beyond_the_steps_groups_are_refused():
    with pytest.raises(ValueError, match="hold group 1; the step has 1"):
        read_step(records_of((1, 0, 0, -1.0, 1.0, 0.5)), groups=1, group_size=2)
    with pytest.raises(ValueError, match="hold sample 2; the step has 2"):
        read_step(records_of((0, 2, 0, -1.0, 1.0, 0.5)), groups=1, group_size=2)
