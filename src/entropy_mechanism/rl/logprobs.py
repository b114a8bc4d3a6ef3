"""Log-probabilities and exact entropies of response tokens, without the [tokens × vocabulary] tensor.

Statistics are float32 whatever the compute type. Sequences are padded on the right and read without an attention
mask: under causal attention no real token ever sees the padding behind it.
"""

from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from entropy_mechanism.rl.batch import Sequences


@dataclass(frozen=True)
class TokenStatistics:
    """Per response token, flat."""

    logprob_N: torch.Tensor
    """log pi(token | prefix) of the policy at the rollout temperature, float32."""
    entropy_N: torch.Tensor
    """Entropy of the full next-token distribution at temperature 1, nats, float32; never carries a gradient."""


def token_statistics(
    model: PreTrainedModel, sequences: Sequences, temperature: float = 1.0, chunk: int = 2048
) -> TokenStatistics:
    """Statistics of every response token in one forward pass over the padded sequences.

    The output head is applied to `chunk` tokens at a time and recomputed in the backward pass, so the peak is
    one chunk of full-vocabulary logits. Token t is predicted from position t - 1; a prompt must not be empty.
    """
    ids_BL, position_N = _padded(sequences)
    device = next(model.parameters()).device
    hidden_BLD = model.model(input_ids=ids_BL.to(device), use_cache=False).last_hidden_state
    hidden_ND = hidden_BLD.flatten(0, 1)[position_N.to(device)]
    target_N = torch.tensor([token for response in sequences.responses for token in response], device=device)
    weight_VD = model.get_output_embeddings().weight
    parts = []
    for hidden, target in zip(hidden_ND.split(chunk), target_N.split(chunk), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(_head, hidden, weight_VD, target, temperature, use_reentrant=False))
        else:
            parts.append(_head(hidden, weight_VD, target, temperature))
    if not parts:
        empty = hidden_ND.new_zeros(0, dtype=torch.float32)
        return TokenStatistics(empty, empty)
    return TokenStatistics(
        torch.cat([logprob for logprob, _ in parts]), torch.cat([entropy for _, entropy in parts])
    )


@torch.no_grad()
def measure(
    model: PreTrainedModel, sequences: Sequences, temperature: float, chunk: int, micro_batch_tokens: int
) -> TokenStatistics:
    """`token_statistics` without gradient, in micro-batches of at most `micro_batch_tokens` padded tokens."""
    parts = [
        token_statistics(model, sequences[rows], temperature, chunk)
        for rows in sequences.micro_batches(micro_batch_tokens)
    ]
    return TokenStatistics(
        torch.cat([part.logprob_N for part in parts]).cpu(),
        torch.cat([part.entropy_N for part in parts]).cpu(),
    )


def _padded(sequences: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids [B, L], and for every response token the flat position that predicts it [N]."""
    length = max(len(p) + len(r) for p, r in zip(sequences.prompts, sequences.responses, strict=True))
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    positions = []
    for row, (prompt, response) in enumerate(zip(sequences.prompts, sequences.responses, strict=True)):
        tokens = prompt + response
        ids[row, : len(tokens)] = torch.tensor(tokens)
        first = row * length + len(prompt) - 1
        positions.append(torch.arange(first, first + len(response)))
    return ids, torch.cat(positions)


def _head(
    hidden: torch.Tensor, weight_VD: torch.Tensor, target: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = (hidden @ weight_VD.T).float()
    with torch.no_grad():
        logprobs = logits.log_softmax(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    if temperature != 1:
        logits = logits / temperature
    chosen = logits.gather(-1, target[:, None]).squeeze(-1)
    return chosen - logits.logsumexp(-1), entropy
