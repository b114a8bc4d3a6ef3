"""Generation with transformers: the engine for CPU, and the reference for others."""

from collections.abc import Iterable, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from entropy_mechanism.memory import MAX_ROWS
from entropy_mechanism.rollouts.engine import Completion, Sampling
from entropy_mechanism.rollouts.prepacked import prepacked
from entropy_mechanism.rollouts.prompts import left_padded


class TransformersEngine:
    """Samples from a transformers model, in-process.

    A prompt is read once for all its responses, and finished responses leave the batch. Every response has its
    own stream of uniform numbers, so the draw depends on its seed alone.
    """

    def __init__(
        self, model: PreTrainedModel, vocabulary: int, max_rows: int = MAX_ROWS, dtype: str = "float32"
    ) -> None:
        """Generate with `model` as it is at each call: a trainer may hand over the very model it updates.

        `vocabulary` is the tokenizer's size; heads are often padded beyond it, and those ids are never drawn.
        `max_rows` bounds the responses generated at once. `dtype` is what is computed in.
        """
        self.model = model
        self.vocabulary = vocabulary
        self.max_rows = max_rows
        self.dtype = getattr(torch, dtype)

    @torch.no_grad()
    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy weights into the engine's model, where that is not the trainer's own.

        Raises ValueError when the names are not those of the engine's model.
        """
        own = self.model.state_dict()
        given = set()
        for name, tensor in weights:
            given.add(name)
            if name in own and own[name].data_ptr() != tensor.data_ptr():
                own[name].copy_(tensor)
        if given != set(own):
            raise ValueError(f"the policy's weights are not the engine's: {', '.join(sorted(given ^ set(own)))}")

    def sleep(self) -> None:
        """Nothing to give back: the cache lives as long as a call of `generate`."""

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        """See `Engine.generate`. Raises ValueError for an empty prompt."""
        if not all(prompts):
            raise ValueError("a prompt without tokens cannot be continued")
        was_training = self.model.training
        self.model.eval()
        samples = max((len(row) for row in seeds), default=1)
        step = max(1, self.max_rows // max(1, samples))
        completions: list[list[Completion]] = []
        half = self.dtype != torch.float32
        with torch.autocast(self.model.device.type, self.dtype, enabled=half), prepacked(self.model):
            for start in range(0, len(prompts), step):
                part = slice(start, start + step)
                completions += self._generate(list(prompts[part]), sampling, [list(row) for row in seeds[part]])
        self.model.train(was_training)
        return completions

    def _generate(
        self, prompts: list[list[int]], sampling: Sampling, seeds: list[list[int]]
    ) -> list[list[Completion]]:
        repeats = torch.tensor([len(row) for row in seeds])
        flat_seeds = [seed for row in seeds for seed in row]
        device = next(self.model.parameters()).device
        uniform_BT = _uniforms(flat_seeds, sampling.max_tokens).to(device)
        mask, position, logits, cache = self._read_prompts(prompts, repeats, device)
        stop = torch.tensor(sampling.stop_ids, device=device)
        rows = torch.arange(len(flat_seeds), device=device)  # which responses are still being written
        tokens: list[list[int]] = [[] for _ in flat_seeds]
        logprobs: list[list[float]] = [[] for _ in flat_seeds]
        stopped = [False] * len(flat_seeds)
        for t in range(sampling.max_tokens):
            token, logprob = self._draw(logits, sampling.temperature, uniform_BT[rows, t])
            ended = torch.isin(token, stop)
            for row, value, log_value, end in zip(
                rows.tolist(), token.tolist(), logprob.tolist(), ended.tolist(), strict=True
            ):
                tokens[row].append(value)
                logprobs[row].append(log_value)
                stopped[row] = end
            if ended.all() or t + 1 == sampling.max_tokens:
                break
            if ended.any():
                keep = (~ended).nonzero().squeeze(-1)
                cache.batch_select_indices(keep)
                rows, token, mask, position = rows[keep], token[keep], mask[keep], position[keep]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            position = position + 1
            logits = self.model(
                input_ids=token[:, None],
                attention_mask=mask,
                position_ids=position[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        completions = iter(
            Completion(ids, values, "stop" if end else "length")
            for ids, values, end in zip(tokens, logprobs, stopped, strict=True)
        )
        return [[next(completions) for _ in row] for row in seeds]

    def _read_prompts(
        self, prompts: list[list[int]], repeats: torch.Tensor, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, DynamicCache]:
        """Attention mask, last position, next-token logits and cache of every response to be written."""
        ids, mask, position = left_padded(prompts, device)
        cache = DynamicCache(config=self.model.config)
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        source = torch.repeat_interleave(torch.arange(len(prompts)), repeats).to(device)
        cache.batch_select_indices(source)
        return mask[source], position[source, -1], logits[source], cache

    def _draw(
        self, logits: torch.Tensor, temperature: float, uniform: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One token per row by inverting the cumulative distribution, and its log-probability."""
        logits = logits[:, : self.vocabulary].float()
        logprob = (logits / temperature if temperature else logits).log_softmax(-1)
        if temperature:
            cumulative = logprob.exp().cumsum(-1)
            # Scaled by the last entry, which rounding leaves a little off 1, so that no draw falls beyond it.
            point = uniform[:, None] * cumulative[:, -1:]
            token = torch.searchsorted(cumulative, point, right=True).squeeze(-1)
            token = token.clamp(max=self.vocabulary - 1)
        else:
            token = logprob.argmax(-1)
        return token, logprob.gather(-1, token[:, None]).squeeze(-1)


def _uniforms(seeds: list[int], length: int) -> torch.Tensor:
    """Uniform numbers in [0, 1), one row of `length` per seed, float32.

    torch's generator uses the low 32 bits of a seed, so about n^2 / 2^33 pairs of n responses share their numbers;
    that matters only to a pair with the same prompt and weights.
    """
    generator = torch.Generator()
    rows = torch.empty(len(seeds), length)
    for row, seed in enumerate(seeds):
        rows[row].uniform_(generator=generator.manual_seed(seed))
    return rows
