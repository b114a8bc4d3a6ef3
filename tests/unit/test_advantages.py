import pytest
import torch

from entropy_mechanism.config import Advantage
from entropy_mechanism.rl.advantages import grpo


@pytest.mark.parametrize(("std", "divisor"), [("sample", 3), ("population", 4)])
def test_grpo_divides_by_the_chosen_standard_deviation(std, divisor):
    rewards = [1.0, 0.0, 0.0, 0.0]
    deviation = (sum((r - 0.25) ** 2 for r in rewards) / divisor) ** 0.5
    found = grpo(torch.tensor([rewards]), Advantage(std=std))
    assert found[0].tolist() == pytest.approx([(r - 0.25) / (deviation + 1e-6) for r in rewards], rel=1e-6)


def test_equal_rewards_have_no_advantage():
    assert grpo(torch.ones(2, 8), Advantage()).abs().max() == 0


def test_prompts_are_normalised_one_by_one():
    alone = grpo(torch.tensor([[1.0, 0.0]]), Advantage())
    both = grpo(torch.tensor([[1.0, 0.0], [5.0, 1.0]]), Advantage())
    assert torch.equal(alone[0], both[0])


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="two or more"):
        grpo(torch.ones(4, 1), Advantage())
