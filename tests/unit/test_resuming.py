"""Equal seeds give equal runs, a stopped run goes on as if it had not been, and the best policy is kept."""

import copy
import math

import pytest
import torch
from training_cases import OBJECTIVES, config_for, grade_even, trainer_for, weights, without_times

from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl.loop import Hooks, Stopped


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(policy, tmp_path, objective):
    config = config_for(objective, **({"updates": 1} if objective == "policy-gradient" else {}))
    runs = []
    for index, settings in enumerate((config, config, config.model_copy(update={"seed": 4}))):
        model, rows = copy.deepcopy(policy), []
        trainer_for(model, settings, tmp_path / str(index), rows).train()
        runs.append((weights(model), without_times(rows)))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0], runs[2][0])
    assert not torch.equal(runs[0][0], weights(policy))


@pytest.mark.parametrize(("stop_after", "estimator"), [(1, "grpo"), (2, "prime"), (3, "reinforce++")])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(policy, tmp_path, stop_after, estimator):
    config = config_for(estimator=estimator, regularisation={"reference_kl": 0.1})
    whole, rows = copy.deepcopy(policy), []
    trainer_for(whole, config, tmp_path / "whole", rows).train()
    stopped, first = copy.deepcopy(policy), []
    trainer = trainer_for(stopped, config, tmp_path / "cut", first, stop=lambda: len(first) == stop_after)
    with pytest.raises(Stopped, match=f"after step {stop_after} of 4"):
        trainer.train()
    resumed, second = copy.deepcopy(policy), []
    trainer = trainer_for(resumed, config, tmp_path / "cut", second)
    assert trainer.resume() == stop_after
    trainer.train()
    assert torch.equal(weights(whole), weights(resumed))
    assert without_times(rows) == without_times(first + second)


@pytest.mark.parametrize("lost", ["no signal", "not finite"])
def test_a_run_stopped_before_its_first_update_goes_on_as_if_it_had_not_been_stopped(policy, tmp_path, lost):
    """There is no optimiser state to save then, and Adam counts its steps from the first."""

    def attempt(folder, model, rows, stop):
        def grader(completions, answers):
            signal = rows or lost != "no signal"
            return grade_even(completions, answers) if signal else [Outcome.WRONG] * len(answers)

        trainer = trainer_for(model, config_for(checkpoint_every=10), folder, rows, stop, grader)
        if lost == "not finite":
            estimate = trainer.advantages
            trainer.advantages = lambda rollout: estimate(rollout) * (1 if rows else math.inf)
        trainer.resume()
        trainer.train()

    whole, rows = copy.deepcopy(policy), []
    attempt(tmp_path / "whole", whole, rows, lambda: False)
    first = []
    with pytest.raises(Stopped):
        attempt(tmp_path / "cut", copy.deepcopy(policy), first, lambda: len(first) == 1)
    assert not rows[0].get("policy/gradient_norm", 0) > 0  # no update was made
    resumed = copy.deepcopy(policy)
    attempt(tmp_path / "cut", resumed, first, lambda: False)
    assert torch.equal(weights(whole), weights(resumed))
    assert without_times(rows) == without_times(first)


def accuracies(trainer, values):
    """Let validation find these accuracies, one after another by step."""
    trainer.validate = lambda: values[trainer.state.step]
    return trainer


def test_the_result_is_the_last_policy_unless_the_best_on_validation_is_asked_for(policy, tmp_path):
    values, kept = [0.1, 0.4, 0.2, 0.4, 0.3], {}
    for final in ("last", "best"):
        config = config_for(final=final, validate_every=1, filter_groups=False)
        trainer = accuracies(trainer_for(copy.deepcopy(policy), config, tmp_path / final / "c", []), values)
        versions = versions_of(trainer)
        trainer.train()
        version, found = trainer.result()
        assert version == {"last": 4, "best": 1}[final]  # of equal accuracies the first
        assert torch.equal(torch.cat([found[name].flatten() for name in found]), versions[version])
        kept[final] = found
    assert not all(torch.equal(kept["last"][name], kept["best"][name]) for name in kept["last"])


def versions_of(trainer):
    """Weights by version, noted by the hook that is asked before every step."""
    versions = {}

    def note():
        values = trainer.policy.model.state_dict().values()
        versions[trainer.state.step] = torch.cat([value.flatten().clone() for value in values])
        return False

    trainer.hooks = Hooks(lambda row: None, note, print)
    return versions


def killed(rows):
    if len(rows) == 6:
        raise KeyboardInterrupt
    return False


def test_the_best_policy_survives_a_kill_with_later_ones_that_never_come_again(policy, tmp_path):
    """As on a GPU, where steps done again may go otherwise: the best that the checkpoint knew is still there."""
    config = config_for(final="best", validate_every=1, checkpoint_every=2, steps=6, filter_groups=False)
    rows = []
    trainer = trainer_for(copy.deepcopy(policy), config, tmp_path / "c", rows, stop=lambda: killed(rows))
    accuracies(trainer, [0.5, 0, 0.6, 0, 0.7, 0.8, 1])
    trainer.save, save = lambda: save() if trainer.state.step == 2 else None, trainer.save
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = accuracies(trainer_for(copy.deepcopy(policy), config, tmp_path / "c", []), [0.1] * 7)
    assert again.resume() == 2
    again.train()
    version, _ = again.result()
    assert version == 0


def test_a_best_policy_of_steps_done_again_is_not_pushed_out_by_those_of_before(policy, tmp_path):
    config = config_for(final="best", validate_every=1, checkpoint_every=2, steps=6, filter_groups=False)
    rows = []
    trainer = trainer_for(copy.deepcopy(policy), config, tmp_path / "c", rows, stop=lambda: killed(rows))
    accuracies(trainer, [0.5, 0, 0.6, 0, 0.7, 0.8, 1])
    trainer.save, save = lambda: save() if trainer.state.step == 2 else None, trainer.save
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = trainer_for(copy.deepcopy(policy), config, tmp_path / "c", [])
    accuracies(again, [0, 0, 0, 0.55, 0, 0, 0])
    assert again.resume() == 2
    again.train()
    assert again.result()[0] == 3
