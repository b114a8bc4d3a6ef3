"""Published base models: the folder where the hub's cache, or the user, keeps them."""

import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from entropy_mechanism.config import HubModel

PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
"""Files of a repository that are needed; others are copies of the weights in older formats."""
UNUSED = ["consolidated*", "*/*"]
"""Files among them that are not: a second copy of the weights, and folders."""


class ModelError(ValueError):
    """A base model that could not be had."""


def fetch(settings: HubModel) -> Path:
    """The folder of a published model, downloaded to the hub's cache unless it is there or `folder` is given.

    Raises ModelError when there is no network and no copy, no such repository or revision, no access, or no model
    in the folder.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if settings.folder is not None:
        return _complete(Path(settings.folder).expanduser(), settings)
    try:
        folder = snapshot_download(
            settings.id, revision=settings.revision, allow_patterns=PATTERNS, ignore_patterns=UNUSED
        )
    except LocalEntryNotFoundError as error:  # no network, or forbidden to use it
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise ModelError(
            f"{settings.id} at revision {settings.revision} is not in the cache and {endpoint} cannot be reached; "
            "download it where there is a network and the same HF_HOME, unset HF_HUB_OFFLINE if it is set, name a "
            "mirror in HF_ENDPOINT, or give a local copy as folder"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{settings.id} is not on the hub, or it is private or gated: check the id, or log in with "
            "`hf auth login` and accept its terms on its page"
        ) from error
    except HfHubHTTPError as error:
        place = f"{settings.id} at revision {settings.revision}"
        raise ModelError(
            f"{place} could not be downloaded: {error}; check the revision and your access"
        ) from error
    return _complete(Path(folder), settings)


def sizes(folder: Path) -> tuple[int, int]:
    """Parameters of the model in a folder, and those outside embedding and output head; no weight is read.

    Raises ModelError when transformers knows no causal language model for its configuration.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder} holds no language model that transformers can load: {reason}") from error
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    outside = model.num_parameters() - embedding.numel() - (0 if head is embedding else head.numel())
    return model.num_parameters(), outside


def _complete(folder: Path, settings: HubModel) -> Path:
    if not folder.is_dir():
        raise ModelError(f"{settings.id}: folder: there is no folder {folder}")
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(
            f"{settings.id}: {folder} is not a whole model, it lacks {', '.join(missing)}; complete it, or take a "
            "repository with weights in safetensors format"
        )
    return folder
