"""Log-probabilities and exact entropies of the response tokens of sequences, padded or packed."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from entropy_mechanism.rl.batch import Sequences, spans
from entropy_mechanism.rl.head import head_statistics


@dataclass(frozen=True)
class TokenStatistics:
    """Per response token, flat."""

    logprob_N: torch.Tensor
    """log pi(token | prefix) of the policy at the rollout temperature, float32."""
    entropy_N: torch.Tensor
    """Entropy of the full next-token distribution at temperature 1, nats, float32."""
    logprobs_nV: torch.Tensor | None = None
    """For the n tokens asked for: log pi of every token of the vocabulary at the rollout temperature."""


def token_statistics(
    model: PreTrainedModel,
    sequences: Sequences,
    temperature: float = 1.0,
    chunk: int = 1024,
    entropy_gradient: bool = False,
    packing: bool | None = None,
    whole_n: torch.Tensor | None = None,
) -> TokenStatistics:
    """Statistics of the N response tokens in one forward pass; token t is predicted from position t - 1.

    `packing` puts all sequences into one row; otherwise each has a row of its own, padded on the right. By default
    they are packed where attention skips other sequences, which is flash attention: elsewhere a packed row has a
    dense mask. `whole_n` are places among the N of tokens whose whole distribution is wanted; it is computed at
    once, so they should be few. Empty responses contribute no token. Raises ValueError for an empty prompt or an
    unknown token id.
    """
    weight_VD = model.get_output_embeddings().weight
    hidden_ND = response_states(model, sequences, packing)
    device = hidden_ND.device
    target_N = sequences.targets_N.to(device)
    found = head_statistics(hidden_ND, weight_VD, target_N, temperature, chunk, entropy_gradient)
    if whole_n is None:
        return TokenStatistics(*found)
    logits_nV = torch.nn.functional.linear(hidden_ND[whole_n.to(device)], weight_VD).float()
    return TokenStatistics(*found, (logits_nV / temperature).log_softmax(-1))


def response_states(model: PreTrainedModel, sequences: Sequences, packing: bool | None = None) -> torch.Tensor:
    """Last hidden states [N, D] of the N places that predict the response tokens, in the type to compute in.

    Logits are these times the output head. `packing` and errors as in `token_statistics`.
    """
    weight_VD = model.get_output_embeddings().weight
    sequences.check(vocabulary=len(weight_VD))
    if packing is None:
        packing = "flash" in (model.config._attn_implementation or "")
    ids_BL, place_BL, predicting_N = _layout(sequences, packing)
    device = weight_VD.device
    # No attention mask: padding stands behind the tokens, where causal attention does not look, and a packed row
    # is cut where its positions restart, which transformers sees only without mask and cache.
    hidden_BLD = model.model(
        input_ids=ids_BL.to(device),
        position_ids=None if place_BL is None else place_BL.to(device),
        use_cache=False,
    ).last_hidden_state
    hidden_ND = hidden_BLD.flatten(0, 1)[predicting_N.to(device)]
    if torch.is_autocast_enabled(device.type):  # where the sum over layers stays float32
        hidden_ND = hidden_ND.to(torch.get_autocast_dtype(device.type))
    return hidden_ND


def _layout(sequences: Sequences, packing: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Token ids [B, L], or [1, L] packed with their positions [1, L]; and the flat places that predict, [N]."""
    lengths, responses = torch.tensor(sequences.lengths), sequences.response_lengths_B
    rows = [prompt + response for prompt, response in zip(sequences.prompts, sequences.responses, strict=True)]
    if packing:
        starts = lengths.cumsum(0) - lengths
        ids = torch.tensor([[token for row in rows for token in row]])
        place = spans(torch.zeros_like(lengths), lengths)[None]
    else:
        longest = int(lengths.max())
        starts = torch.arange(len(sequences)) * longest
        ids, place = torch.tensor([row + [0] * (longest - len(row)) for row in rows]), None
    return ids, place, spans(starts + lengths - responses - 1, responses)
