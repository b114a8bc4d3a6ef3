"""What vLLM loads by name, in each of its workers; nothing else imports this."""

import torch
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor


class TokenizerIdsOnly(LogitsProcessor):
    """Rules out the ids beyond the tokenizer, which the rows of a padded head would give.

    For all rows at once: a list of allowed ids for each request would be as long as the vocabulary.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        """Take the tokenizer's size from `additional_config`."""
        self.vocabulary: int = vllm_config.additional_config["vocabulary"]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Give the other ids no probability."""
        logits[:, self.vocabulary :] = -torch.inf
        return logits

    def is_argmax_invariant(self) -> bool:
        """It concerns greedy decoding too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """It is the same for all requests."""
