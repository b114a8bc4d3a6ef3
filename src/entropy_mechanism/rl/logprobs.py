"""Log-probabilities and exact entropies of the response tokens of sequences."""

from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import DynamicCache, PreTrainedModel

from entropy_mechanism.rl.batch import Sequences, spans
from entropy_mechanism.rl.head import head_statistics
from entropy_mechanism.rollouts.prompts import left_padded

LEAST_SAVED = 0.15
"""Share of the tokens of whole rows that reading each prompt once has to leave out: see benchmarks/tried.py."""


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
    """Statistics of the N response tokens; token t is predicted from position t - 1.

    `packing` puts all sequences into one row; otherwise each has a row of its own, padded on the right, or, on the
    CPU and where that saves enough, each prompt is read once and its responses continue it. By default they are
    packed where attention skips other sequences, which is flash attention: elsewhere a packed row has a dense
    mask, as responses behind a prompt have. `whole_n` are places among the N of tokens whose whole distribution is
    wanted; it is computed at once, so they should be few. Empty responses contribute no token. Raises ValueError
    for an empty prompt or an unknown token id.
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
    device = weight_VD.device
    once = device.type == "cpu" and _can_append(model) and share_saved(sequences) >= LEAST_SAVED
    if once and not packing:
        hidden_ND = _prompts_once(model, sequences, device)
    else:
        hidden_ND = _whole_rows(model, sequences, packing, device)
    if torch.is_autocast_enabled(device.type):  # where the sum over layers stays float32
        hidden_ND = hidden_ND.to(torch.get_autocast_dtype(device.type))
    return hidden_ND


def _whole_rows(model: PreTrainedModel, sequences: Sequences, packing: bool, device: torch.device) -> torch.Tensor:
    """States [N, D] from one pass over whole sequences."""
    ids_BL, place_BL, predicting_N = _layout(sequences, packing)
    # No attention mask: padding stands behind the tokens, where causal attention does not look, and a packed row
    # is cut where its positions restart, which transformers sees only without mask and cache.
    hidden_BLD = model.model(
        input_ids=ids_BL.to(device),
        position_ids=None if place_BL is None else place_BL.to(device),
        use_cache=False,
    ).last_hidden_state
    return hidden_BLD.flatten(0, 1)[predicting_N.to(device)]


def _layout(sequences: Sequences, packing: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Token ids [B, L], or one row [1, L] with its positions [1, L]; and the flat places that predict, [N]."""
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


def _can_append(model: PreTrainedModel) -> bool:
    """Whether layers can be read twice in a pass: not if they are sharded or compute their activations again.

    Ranks that share weights must read them equally often, and one that has no sequences left reads once. Layers
    that compute again would add to the cache again; their own `forward` is from `policy.recompute_activations`.
    """
    layers = model.get_submodule("model.layers").children()
    return not any(isinstance(layer, FSDPModule) or "forward" in vars(layer) for layer in layers)


def share_saved(sequences: Sequences) -> float:
    """Share of the padded tokens of whole rows that reading each prompt once leaves out, or less than 0."""
    prompts = set(map(tuple, sequences.prompts))
    responses = len(sequences) * max(0, int(sequences.response_lengths_B.max()) - 1)
    once = len(prompts) * max(map(len, prompts)) + responses
    return 1 - once / (len(sequences) * max(sequences.lengths))


def _prompts_once(model: PreTrainedModel, sequences: Sequences, device: torch.device) -> torch.Tensor:
    """States [N, D] from a pass over the prompts, each once, and one over the responses that continue them."""
    number: dict[tuple[int, ...], int] = {}
    source = [number.setdefault(tuple(prompt), len(number)) for prompt in sequences.prompts]
    source_B = torch.tensor(source, device=device)
    ids_PL, mask_PL, position_PL = left_padded(list(number), device)
    cache = DynamicCache(config=model.config)
    hidden_PLD = model.model(
        input_ids=ids_PL,
        attention_mask=mask_PL,
        position_ids=position_PL,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    hidden_BLD = hidden_PLD[source_B, -1:]
    longest = int(sequences.response_lengths_B.max())
    if longest > 1:  # a response's last token predicts nothing
        cache.batch_select_indices(source_B)
        # Padded on the right, where causal attention does not look; an empty response is padding alone.
        ids = [row[:-1] + [0] * (longest - max(1, len(row))) for row in sequences.responses]
        mask_BL = mask_PL.new_ones(len(sequences), longest - 1)
        later_BLD = model.model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.cat([mask_PL[source_B], mask_BL], dim=1),
            position_ids=position_PL[source_B, -1:] + torch.arange(1, longest, device=device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        hidden_BLD = torch.cat([hidden_BLD, later_BLD], dim=1)
    starts_B = torch.arange(len(sequences)) * longest
    return hidden_BLD.flatten(0, 1)[spans(starts_B, sequences.response_lengths_B).to(device)]
