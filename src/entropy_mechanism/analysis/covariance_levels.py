"""The covariance of log-probability and advantage at three levels, on the same tokens.

The paper states it for actions (Theorem 1), measures it on whole responses, and acts on that of tokens.
"""

import torch

from entropy_mechanism.analysis.dynamics import LEVELS
from entropy_mechanism.analysis.token_covariances import Step
from entropy_mechanism.rl import covariance


def step_levels(step: Step) -> dict[str, float]:
    """Covariances of one step, and those of its prompts of each group accuracy k/G: `{level}_accuracy_{k/G}`.

    token: Eq. 10, (log pi - mean)(A - mean) averaged over all N tokens, the means being over all of them.
    sequence: over the responses of a prompt, of (log pi(y|x), A(y)), the form of Theorem 2, averaged over prompts.
    action: over the responses of a prompt, of (log pi(y|x), pi(y|x) A(y)), Eq. 8-9, the form of Theorem 1.
    In the last two log pi(y|x) is the mean over a response's tokens.
    """
    token_N = covariance.token_covariance(step.logprob_N, step.advantage_N)
    means = (step.logprob_PG, step.advantage_PG)
    prompt_N = step.response_N // step.group_size
    covariances = (
        (token_N, step.right_P[prompt_N]),
        (covariance.response_covariance(*means, weighted=False), step.right_P),
        (covariance.response_covariance(*means), step.right_P),
    )
    by_level = dict(zip(LEVELS, covariances, strict=True))
    found = {level: float(values.mean()) for level, (values, _) in by_level.items()}
    for right in torch.unique(step.right_P).tolist():
        for level, (values, right_of) in by_level.items():
            chosen = values[right_of == right]
            if len(chosen):
                found[f"{level}_accuracy_{right / step.group_size:g}"] = float(chosen.mean())
    return found
