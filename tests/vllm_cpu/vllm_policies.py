"""Small random policies that vLLM's CPU kernels can run: heads of size 32 or 64."""

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from entropy_mechanism.models.load import save_policy
from entropy_mechanism.models.tiny import build_tokenizer

VOCABULARY = 60
"""The tokenizer's size; the head has four rows more."""


def random_policy(head=32, tied=True, seed=0):
    """A random two-layer Qwen2 model with two heads; equal at every call with equal arguments."""
    config = Qwen2Config(
        vocab_size=VOCABULARY + 4,
        hidden_size=2 * head,
        intermediate_size=4 * head,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).eval()


def saved(policy, folder):
    """The folder, with the policy in it; the tokenizer beside it is some other one."""
    save_policy(policy, build_tokenizer(), folder)
    return folder
