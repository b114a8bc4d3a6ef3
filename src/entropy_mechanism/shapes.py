"""Sizes of language models: the numbers of a config.json that memory depends on, and those of published models."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from entropy_mechanism import files


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family (Qwen2, Mistral and DeepSeek are others): grouped attention, gated MLP."""

    layers: int
    """Transformer blocks."""
    width: int
    """Hidden size D."""
    heads: int
    """Attention heads H."""
    kv_heads: int
    """Key-value heads K."""
    feed_forward: int
    """Inner width F of the MLP."""
    vocabulary: int
    """Rows V of embedding and output head, padding included."""
    tied: bool = False
    """Whether the output head is the embedding."""
    head_size: int = 0
    """Size of a head; 0 means width / heads."""

    @property
    def query_width(self) -> int:
        """Width of all queries of a token, H times the head size."""
        return self.heads * (self.head_size or self.width // self.heads)

    @property
    def kv_width(self) -> int:
        """Width of all keys of a token, K times the head size; the values have as much."""
        return self.kv_heads * (self.head_size or self.width // self.heads)

    @cached_property
    def layer_parameters(self) -> int:
        """Weights of a block: attention, gated MLP, two norms. Biases, under 0.1 %, are left out."""
        attention = 2 * self.width * (self.query_width + self.kv_width)
        return attention + 3 * self.width * self.feed_forward + 2 * self.width

    @property
    def head_parameters(self) -> int:
        """Weights of the output head."""
        return self.vocabulary * self.width

    @property
    def outer_parameters(self) -> int:
        """Weights outside the blocks: embedding, output head unless tied, last norm."""
        return self.head_parameters * (1 if self.tied else 2) + self.width

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layers * self.layer_parameters + self.outer_parameters


def from_config(config: Mapping[str, Any], source: str) -> Shape:
    """The shape in a config.json; ValueError naming `source` and the missing key when it is of another family."""
    config = config.get("text_config", config)
    try:
        heads = config["num_attention_heads"]
        return Shape(
            layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            feed_forward=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            head_size=config.get("head_dim") or 0,
        )
    except KeyError as error:
        raise ValueError(
            f"{source} has no {error}: memory is planned for decoders with the keys of the Llama family"
        ) from None


def from_folder(folder: Path) -> Shape:
    """The shape of the model in a folder; no weight is read."""
    path = folder / "config.json"
    return from_config(files.read_json(path), str(path))


PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": Shape(24, 896, 14, 2, 4864, 151_936, tied=True),
    "Qwen/Qwen2.5-1.5B": Shape(28, 1536, 12, 2, 8960, 151_936, tied=True),
    "Qwen/Qwen2.5-3B": Shape(36, 2048, 16, 2, 11_008, 151_936, tied=True),
    "Qwen/Qwen2.5-7B": Shape(28, 3584, 28, 4, 18_944, 152_064),
    "Qwen/Qwen2.5-14B": Shape(48, 5120, 40, 8, 13_824, 152_064),
    "Qwen/Qwen2.5-32B": Shape(64, 5120, 40, 8, 27_648, 152_064),
    "mistralai/Mistral-7B-v0.3": Shape(32, 4096, 32, 8, 14_336, 32_768),
    "mistralai/Mistral-Nemo-Base-2407": Shape(40, 5120, 32, 8, 14_336, 131_072, head_size=128),
    "mistralai/Mistral-Small-24B-Base-2501": Shape(40, 5120, 32, 8, 32_768, 131_072, head_size=128),
    "meta-llama/Llama-3.2-3B": Shape(28, 3072, 24, 8, 8192, 128_256, tied=True, head_size=128),
    "meta-llama/Llama-3.1-8B": Shape(32, 4096, 32, 8, 14_336, 128_256),
    "deepseek-ai/deepseek-math-7b-base": Shape(30, 4096, 32, 32, 11_008, 102_400),
}
"""The paper's base models, and Qwen2.5-14B between them, from the config.json of each repository: layers, width,
heads, key-value heads, inner width, vocabulary."""
PUBLISHED |= {f"{name}-Instruct": shape for name, shape in PUBLISHED.items() if name.startswith("Qwen/Qwen2.5")}
