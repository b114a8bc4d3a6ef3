"""The presets: what each fixes, and that `paper-code` is the released code's arithmetic to 1e-9."""

import pytest
import torch
from loss_vectors import cases

from entropy_mechanism.config import Method
from entropy_mechanism.rl import objectives
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.objectives import Tokens
from entropy_mechanism.rl.update import select, token_weights


def method(preset, **objective):
    return Method.model_validate({"preset": preset, "objective": objective})


def paper_code(kind, params):
    if kind == "ppo":
        return method("paper-code", name="ppo-clip", clip_low=params["low"], clip_high=params["high"])
    if kind == "kl_cov":
        return method("paper-code", name="kl-cov", fraction=params["percent"], coefficient=params["coefficient"])
    return method("paper-code", name="clip-cov", fraction=params["ratio"])


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: f"{case[0]}-{sum(case[2])}")
def test_paper_code_equals_the_released_arithmetic(case):
    kind, params, lengths, old, new, advantages, loss, gradient = case
    chosen = paper_code(kind, params)
    sequences = Sequences([[0]] * len(lengths), [[0] * n for n in lengths])
    flat = [torch.tensor([v for row in rows for v in row], dtype=torch.float64) for rows in (new, old)]
    logprob = flat[0].requires_grad_()
    advantage = torch.tensor(advantages, dtype=torch.float64)[sequences.sequence_N]
    generator = torch.Generator().manual_seed(0)
    selected = select(logprob.detach(), flat[1], advantage, chosen.objective, generator)
    tokens = Tokens(logprob, flat[1], advantage, selected, sequences.sequence_N)
    weights = token_weights(sequences, sequences, chosen.aggregation, 99, dtype=torch.float64)
    found = (weights * objectives.OBJECTIVES[chosen.objective.name](tokens, chosen.objective)).sum()
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-9)
    assert logprob.grad.tolist() == pytest.approx(gradient, abs=1e-9)
    if kind == "kl_cov":
        assert selected.any()


def test_the_cases_reach_every_branch():
    kinds = [case[0] for case in cases()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"ppo": 4, "kl_cov": 4, "clip_cov": 4}
    banded = [case for case in cases() if case[0] == "clip_cov" and 0.0 in case[7]]
    assert len(banded) >= 3


def test_paper_code_selects_in_each_micro_batch_at_least_one_token_in_percent():
    kl_cov = method("paper-code", name="kl-cov").objective
    assert (kl_cov.scope, kl_cov.min_tokens, kl_cov.unit, kl_cov.share) == ("microbatch", 1, "percent", 0.002)
    assert (kl_cov.penalty, kl_cov.coefficient, kl_cov.clip_high) == ("abs", 1.0, None)
    clip_cov = method("paper-code", name="clip-cov").objective
    assert (clip_cov.scope, clip_cov.min_tokens, clip_cov.share, clip_cov.band) == ("microbatch", 1, 2e-4, "open")
    assert (clip_cov.clip_low, clip_cov.clip_high, clip_cov.exclude_clipped) == (1.0, 1.0, True)
    assert clip_cov.count_selected
    assert method("paper-code", name="ppo-clip").aggregation == "micro-batch-mean"
    assert method("paper-code", name="ppo-clip").objective.dual_clip is None


def test_paper_text_selects_over_the_batch_without_a_floor_or_a_clip():
    kl_cov = method("paper-text", name="kl-cov")
    assert (kl_cov.objective.scope, kl_cov.objective.min_tokens, kl_cov.objective.penalty) == (
        "minibatch",
        0,
        "k3",
    )
    clip_cov = method("paper-text", name="clip-cov").objective
    assert (clip_cov.clip_low, clip_cov.clip_high, clip_cov.band) == (None, None, "closed")
    assert kl_cov.aggregation == "token-mean"


def test_verl_gives_fractions_a_weaker_penalty_and_a_dual_clip():
    kl_cov = method("verl", name="kl-cov").objective
    assert (kl_cov.share, kl_cov.coefficient, kl_cov.unit) == (2e-4, 0.1, "fraction")
    ppo = method("verl", name="ppo-clip").objective
    assert (ppo.dual_clip, ppo.log_ratio_clamp) == (3.0, 20.0)


def test_a_method_has_the_last_word_over_its_preset():
    chosen = Method.model_validate(
        {"preset": "paper-code", "aggregation": "token-mean", "objective": {"name": "kl-cov", "min_tokens": 0}}
    )
    assert chosen.aggregation == "token-mean"
    assert chosen.objective.min_tokens == 0
    assert chosen.objective.scope == "microbatch"


def test_percent_and_fraction_are_the_same_share():
    percent = method(None, name="kl-cov", fraction=0.2, unit="percent").objective
    assert percent.share == pytest.approx(method(None, name="kl-cov", fraction=2e-3).objective.share)
    with pytest.raises(ValueError, match="at most the whole"):
        method(None, name="kl-cov", fraction=2.0)
