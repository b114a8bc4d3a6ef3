"""Log-probabilities and entropies from hidden states, without the [tokens × vocabulary] tensor.

The output head is applied to a chunk of tokens at a time: once going forward, and once more going backward, where
the gradient takes the place of the logits. Peak memory is two chunks of logits and the head's gradient.
Shape suffixes: N tokens, n tokens of a chunk, V vocabulary, D width.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def head_statistics(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    target_N: torch.Tensor,
    temperature: float = 1.0,
    chunk: int = 1024,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability [N] of each target at `temperature` and entropy [N] at 1, logits being hidden @ weight.T.

    Weights are read in the type of `hidden_ND`; logits and statistics are float32, or float64 for float64. The
    entropy carries a gradient if `entropy_gradient`. Neither can be differentiated twice.
    """
    return _ChunkedHead.apply(hidden_ND, weight_VD, target_N, temperature, chunk, entropy_gradient)


def head_entropy_change(
    before_ND: torch.Tensor,
    before_weight_VD: torch.Tensor,
    after_ND: torch.Tensor,
    after_weight_VD: torch.Tensor,
    target_N: torch.Tensor,
    chunk: int = 1024,
) -> torch.Tensor:
    """How the entropy changes from one policy to another after the same prefixes, and by Lemma 1; [3, N].

    First row: H' - H, the entropies of the next token at temperature 1. Second row: what Lemma 1 of arXiv
    2505.22617 predicts to first order, -Cov_{a~pi}(log pi(a), z'(a) - z(a)) with policy pi and logits z before,
    exactly over the whole vocabulary. Third row: z' - z of the target less its mean under pi. Hidden states,
    weights and types as in `head_statistics`; no gradient.
    """
    with torch.no_grad(), torch.autocast(before_ND.device.type, enabled=False):
        rows = max(1, chunk // 4)  # seven tensors of this many logits at once; the backward pass holds two chunks
        before_head_VD = before_weight_VD.to(before_ND.dtype)
        after_head_VD = after_weight_VD.to(before_ND.dtype)
        parts = [
            _chunk_entropy_change(
                _shifted_logits(before_nD, before_head_VD), _shifted_logits(after_nD, after_head_VD), target_n
            )
            for before_nD, after_nD, target_n in zip(
                before_ND.split(rows), after_ND.split(rows), target_N.split(rows), strict=True
            )
        ]
    return torch.cat(parts, 1)


def _chunk_entropy_change(before_nV: torch.Tensor, after_nV: torch.Tensor, target_n: torch.Tensor) -> torch.Tensor:
    """`head_entropy_change` from logits.

    A covariance does not see a constant, so log pi' - log pi may stand for z' - z.
    """
    logprob_nV, after_nV = before_nV.log_softmax(-1), after_nV.log_softmax(-1)
    change_nV = after_nV - logprob_nV
    after_entropy_n = -after_nV.mul_(after_nV.exp()).sum(-1)
    probability_nV = logprob_nV.exp()
    entropy_n = -(probability_nV * logprob_nV).sum(-1)
    change_nV.sub_((probability_nV * change_nV).sum(-1, keepdim=True))
    target_change_n = change_nV.gather(-1, target_n[:, None]).squeeze(-1)
    covariance_n = logprob_nV.add_(entropy_n[:, None]).mul_(change_nV).mul_(probability_nV).sum(-1)
    return torch.stack([after_entropy_n - entropy_n, -covariance_n, target_change_n])


class _ChunkedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        target_N: torch.Tensor,
        temperature: float,
        chunk: int,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight = weight_VD.to(hidden_ND.dtype)
            parts = [
                _chunk_statistics(_shifted_logits(hidden, weight), target, temperature)
                for hidden, target in zip(hidden_ND.split(chunk), target_N.split(chunk), strict=True)
            ]
        # cloned, since FSDP2 cannot hook views
        logprob_N, mean_N, logsum_N, tempered_logsum_N = (values.clone() for values in torch.cat(parts, 1))
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, mean_N, logsum_N, tempered_logsum_N)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        entropy_N = logsum_N - mean_N
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_N)
        return logprob_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, logprob_gradient_N: torch.Tensor | None, entropy_gradient_N: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        hidden_ND, weight_VD, target_N, mean_N, logsum_N, tempered_logsum_N = ctx.saved_tensors
        if logprob_gradient_N is None:
            logprob_gradient_N = torch.zeros_like(mean_N)
        hidden_gradient = torch.zeros_like(hidden_ND) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.zeros_like(weight_VD, dtype=mean_N.dtype) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight = weight_VD.to(hidden_ND.dtype)
            for start in range(0, len(hidden_ND), ctx.chunk):
                rows = slice(start, start + ctx.chunk)
                _add_gradients_(
                    hidden_ND[rows],
                    weight,
                    _logit_gradient(
                        _shifted_logits(hidden_ND[rows], weight),
                        target_N[rows],
                        mean_N[rows],
                        logsum_N[rows],
                        tempered_logsum_N[rows],
                        logprob_gradient_N[rows],
                        None if entropy_gradient_N is None else entropy_gradient_N[rows],
                        ctx.temperature,
                    ),
                    None if hidden_gradient is None else hidden_gradient[rows],
                    weight_gradient,
                )
        if weight_gradient is not None:
            weight_gradient = weight_gradient.to(weight_VD.dtype)
        return hidden_gradient, weight_gradient, None, None, None, None


def _shifted_logits(hidden_nD: torch.Tensor, weight_VD: torch.Tensor) -> torch.Tensor:
    """Logits [n, V] less the largest of each row: probabilities do not change, and no value is positive."""
    logits_nV = _matmul(hidden_nD, weight_VD.T)
    return logits_nV.sub_(logits_nV.amax(-1, keepdim=True))


def _chunk_statistics(logits_nV: torch.Tensor, target_n: torch.Tensor, temperature: float) -> torch.Tensor:
    """Four rows [4, n]: log-probability, mean logit under p, log sum exp(logits), log sum exp(logits / T).

    The largest logit is 0, so both sums are at least 1: a log-probability is never positive, and the entropy is
    the sum of two terms that are never negative, log sum exp(logits) and minus the mean logit.
    """
    weights_nV = logits_nV.exp()
    sum_n = weights_nV.sum(-1)
    mean_n = weights_nV.mul_(logits_nV).sum(-1) / sum_n
    chosen_n = logits_nV.gather(-1, target_n[:, None]).squeeze(-1) / temperature
    tempered_n = sum_n if temperature == 1 else logits_nV.div_(temperature).exp_().sum(-1)
    return torch.stack([chosen_n - tempered_n.log(), mean_n, sum_n.log(), tempered_n.log()])


def _logit_gradient(
    logits_nV: torch.Tensor,
    target_n: torch.Tensor,
    mean_n: torch.Tensor,
    logsum_n: torch.Tensor,
    tempered_logsum_n: torch.Tensor,
    logprob_gradient_n: torch.Tensor,
    entropy_gradient_n: torch.Tensor | None,
    temperature: float,
) -> torch.Tensor:
    """Gradient [n, V] with respect to the logits, which it overwrites."""
    entropy_part_nV = None
    if entropy_gradient_n is not None:
        # d entropy / d logits = -p (log p + entropy) = -p (logits - mean logit under p)
        entropy_part_nV = (logits_nV - logsum_n[:, None]).exp_().mul_(-entropy_gradient_n[:, None])
        entropy_part_nV.mul_(logits_nV.sub_(mean_n[:, None]))
        logits_nV.add_(mean_n[:, None])
    # d log-probability / d logits = (onehot - softmax(logits / T)) / T
    scale_n1 = (logprob_gradient_n / temperature)[:, None]
    logits_nV.div_(temperature).sub_(tempered_logsum_n[:, None]).exp_().mul_(-scale_n1)
    logits_nV.scatter_add_(-1, target_n[:, None], scale_n1)
    return logits_nV if entropy_part_nV is None else logits_nV.add_(entropy_part_nV)


def _add_gradients_(
    hidden_nD: torch.Tensor,
    weight_VD: torch.Tensor,
    gradient_nV: torch.Tensor,
    hidden_gradient_nD: torch.Tensor | None,
    weight_gradient_VD: torch.Tensor | None,
) -> None:
    """Write the gradient of the hidden states and add that of the weight, where they are wanted."""
    gradient_nV = gradient_nV.to(hidden_nD.dtype)
    if hidden_gradient_nD is not None:
        torch.mm(gradient_nV, weight_VD, out=hidden_gradient_nD)
    if weight_gradient_VD is not None and weight_gradient_VD.dtype == hidden_nD.dtype:
        weight_gradient_VD.addmm_(gradient_nV.T, hidden_nD)
    elif weight_gradient_VD is not None:
        weight_gradient_VD += _matmul(gradient_nV.T, hidden_nD)


def _matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product in float32 for half-precision operands, not rounded to their type: 0.05 nat at a logit of 20."""
    if left.dtype in (torch.float32, torch.float64):
        return left @ right
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left.float() @ right.float()
