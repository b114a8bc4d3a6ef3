"""The manifest of a policy: where its weights are, and the digest of every file among them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropy_mechanism import files


@dataclass(frozen=True)
class Manifest:
    """A base model or the final policy of a run."""

    weights: Path
    """Hugging Face folder with model and tokenizer."""
    digests: dict[str, str]
    """SHA-256 of every file in it."""
    facts: dict[str, Any]
    """Whatever else its maker wanted to be known: fingerprint, sizes, seconds."""

    @property
    def chat_template(self) -> str | None:
        """The template that prompts are written with, where it is not the tokenizer's own."""
        return self.facts.get("chat_template")

    @property
    def identity(self) -> dict[str, str]:
        """What determines a policy's answers, for fingerprints: its files, and a chat template beside them."""
        return self.digests | ({"chat_template": self.chat_template} if self.chat_template else {})

    def verify(self) -> None:
        """Raise ValueError naming the first file that is missing or not what was written."""
        for name, expected in self.digests.items():
            path = self.weights / name
            if not path.is_file():
                raise ValueError(f"{path} is missing; delete the manifest that lists it to make it again")
            if files.sha256(path) != expected:
                raise ValueError(f"{path} was changed after it was written; its digest should be {expected}")


def write(path: Path, weights: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of the folder `weights`; its place is stored relative to the manifest's."""
    digests = {name: digest for name, digest in files.sha256_of_tree(weights).items() if name != path.name}
    relative = Path(os.path.relpath(weights, path.parent)).as_posix()
    files.write_json(path, {"schema": 1, "weights": relative, "digests": digests, **facts})


def read(path: Path) -> Manifest:
    """Read a manifest; ValueError when it is not one."""
    raw = files.read_json(path)
    try:
        weights, digests = raw.pop("weights"), raw.pop("digests")
    except (KeyError, AttributeError):
        raise ValueError(f"{path} is not a manifest: it has no weights and digests") from None
    return Manifest((path.parent / weights).resolve(), digests, raw)
