"""Policies and tokenizers on disk: ordinary Hugging Face folders, written whole or not at all."""

import os
import tempfile
from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

logging.disable_progress_bar()  # a bar for every file read would bury the progress of training


def load_policy(
    path: Path | str,
    dtype: torch.dtype | str = torch.float32,
    attention: str | None = None,
    empty: bool = False,
) -> PreTrainedModel:
    """The causal language model in folder `path`, in evaluation mode on the CPU, its weights in `dtype`.

    `attention` is one of `Compute.attention`. An `empty` model is for a rank that is sent its share of the
    weights: it has all that its configuration determines, and its weights are on device meta.

    Raises FileNotFoundError when there is no such folder and ValueError when it holds no model, or when there is
    no such attention here.
    """
    folder = _existing(path, "config.json", "a model")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} is not a model folder: it has no *.safetensors file with weights")
    try:
        if empty:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            with init_empty_weights(include_buffers=False):
                made = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
            made.tie_weights()
            return made.eval()
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention, local_files_only=True
        ).eval()
    except ImportError as error:
        raise ValueError(
            f"compute.attention: {attention} cannot be used: {str(error).strip().splitlines()[0]} Take sdpa, or "
            "install what it needs (flash_attention_2: the package flash-attn)"
        ) from error


def load_tokenizer(path: Path | str, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer in folder `path`, with `chat_template` in place of its own; it pads on the left.

    Raises FileNotFoundError when there is no such folder and ValueError when it holds no tokenizer.
    """
    folder = _existing(path, "tokenizer_config.json", "a tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path | str,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write model and tokenizer as one folder at `path`, replacing a folder that stands there.

    `weights` are those to write where the model holds only a share of them.

    Everything is written to a temporary folder beside it, synced and renamed: `path` never holds half a model.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as workplace:
        written = Path(workplace) / "new"
        model.save_pretrained(written, state_dict=weights)
        tokenizer.save_pretrained(written)
        for file in written.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.is_dir():
            path.rename(Path(workplace) / "replaced")
        written.rename(path)


def _existing(path: Path | str, file: str, what: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: {what} was expected there")
    if not (folder / file).is_file():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise ValueError(f"{folder} does not hold {what}: {file} is missing, found {found}")
    return folder
