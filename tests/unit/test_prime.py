import copy

import pytest
import torch

from entropy_mechanism.config import RewardModel, Training
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.prime import ImplicitRewardModel, prime_advantages

TRAINING = Training(steps=1, prompts=2, samples=2, updates=1, learning_rate=1e-3, max_response=6)
SEQUENCES = Sequences(
    prompts=[[2, 3], [2, 3], [4], [4]],
    responses=[[5, 6, 7], [8, 9], [10], [11, 12, 13, 14]],
)


def by_hand(process, rewards, lengths):
    """Eq. 5 written out for one group."""
    group = len(rewards)
    advantages = []
    for i in range(group):
        others = [j for j in range(group) if j != i]
        baseline = sum(sum(process[j]) / lengths[j] for j in others) / (group - 1)
        outcome = rewards[i] - sum(rewards[j] for j in others) / (group - 1)
        advantages += [
            outcome + sum(process[i][s] - baseline for s in range(t, lengths[i])) for t in range(lengths[i])
        ]
    return advantages


def test_advantages_are_leave_one_out_outcomes_plus_centred_returns():
    process = [[0.1, -0.2, 0.3], [0.5, 0.4], [-0.1], [0.2, 0.0, 0.1, -0.4]]
    rewards = [[1.0, 0.0], [0.0, 0.5]]
    expected = by_hand(process[:2], rewards[0], [3, 2]) + by_hand(process[2:], rewards[1], [1, 4])
    flat = torch.tensor([value for row in process for value in row], dtype=torch.float64)
    found = prime_advantages(flat, torch.tensor(rewards, dtype=torch.float64), SEQUENCES)
    assert found.tolist() == pytest.approx(expected)


def test_rewards_start_at_zero_and_are_beta_times_the_log_ratio(policy):
    reward_model = ImplicitRewardModel(policy, RewardModel(beta=0.5), TRAINING)
    assert reward_model.rewards(SEQUENCES).abs().max() == 0
    with torch.no_grad():
        reward_model.model.model.lm_head.weight.mul_(1.5)
    changed = reward_model.model.measure(SEQUENCES, 1.0, 64, 1000).logprob_N
    base = Policy(policy).measure(SEQUENCES, 1.0, 64, 1000).logprob_N
    torch.testing.assert_close(reward_model.rewards(SEQUENCES), 0.5 * (changed - base))


def test_the_reward_model_learns_to_tell_right_from_wrong_and_leaves_the_policy_alone(policy):
    before = copy.deepcopy(policy.state_dict())
    reward_model = ImplicitRewardModel(policy, RewardModel(learning_rate=1e-2, beta=1.0), TRAINING)
    right = torch.tensor([1.0, 0.0, 0.0, 1.0])
    metrics = [reward_model.update(SEQUENCES, right) for _ in range(30)]
    assert metrics[0]["reward_model/loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: it knows nothing yet
    assert metrics[-1]["reward_model/loss"] < 0.1
    assert metrics[-1]["reward_model/accuracy"] == 1
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_a_loss_that_is_not_finite_leaves_the_reward_model_alone_and_is_counted(policy):
    reward_model = ImplicitRewardModel(policy, RewardModel(learning_rate=1e-2, beta=1.0), TRAINING)
    assert reward_model.update(SEQUENCES, torch.tensor([1.0, 0, 0, 1]))["reward_model/skipped_updates"] == 0
    before = reward_model.rewards(SEQUENCES)
    metrics = reward_model.update(SEQUENCES, torch.tensor([1.0, 0, 0, torch.nan]))
    assert metrics["reward_model/skipped_updates"] == 1
    assert torch.equal(reward_model.rewards(SEQUENCES), before)


def test_an_update_of_the_reward_model_does_not_depend_on_the_micro_batch_size(policy):
    weights = []
    for tokens in (1000, 7):
        training = TRAINING.model_copy(update={"micro_batch_tokens": tokens})
        reward_model = ImplicitRewardModel(policy, RewardModel(learning_rate=1e-3, beta=1.0), training)
        reward_model.optimizer = torch.optim.SGD(reward_model.model.model.parameters(), lr=0.1)
        reward_model.update(SEQUENCES, torch.tensor([1.0, 0.0, 0.0, 1.0]))
        weights.append(torch.cat([p.detach().flatten() for p in reward_model.model.model.parameters()]))
    torch.testing.assert_close(*weights, atol=1e-6, rtol=1e-4)
