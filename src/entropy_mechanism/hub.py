"""Data sets and models from elsewhere: of the Hugging Face hub, of a file, joined; and the choice among all."""

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from entropy_mechanism.config_errors import PROBLEMS_PATTERN, REPOSITORY_PATTERN, KeyedError
from entropy_mechanism.generated import ArithmeticSet, ProgramSet, TinyModel
from entropy_mechanism.settings import Count, PromptStyle, Seed, Strict

SourceName = Literal[
    "dapo-math",
    "dapo-math-raw",
    "eurus2-math",
    "eurus2-math-heldout",
    "eurus2-code",
    "eurus2-code-heldout",
    "kodcode",
    "kodcode-heldout",
    "acecode",
    "gsm8k-train",
    "gsm8k-test",
    "math-train",
    "math500",
    "aime24",
    "aime25",
    "amc",
    "amc23",
    "omni-math",
    "omni-math-rule",
    "olympiadbench",
    "minerva",
]
"""Names of the entries of `data/sources.py`."""

_SHARED = ({"dapo-math", "dapo-math-raw"}, {"amc", "amc23"}, {"omni-math", "omni-math-rule"})
"""Sources that publish the same problems, at least in part."""

Revision = Annotated[str, Field(min_length=1)]


class HubSet(Strict):
    """A published data set, downloaded and brought into the project's form; docs/data.md lists the sources."""

    kind: Literal["hub"]
    source: SourceName
    """Which data set."""
    revision: Revision | None = None
    """Commit (best), tag or branch to read; by default what the source's entry names."""
    rows: Count | None = None
    """Rows that the source must have, where the publisher has changed their number and the change is accepted."""
    folder: str | None = None
    """Read this local copy of the source's repository, or of its file, instead of the hub."""
    data_sources: Annotated[list[str], Field(min_length=1)] | None = None
    """Keep only problems whose column `data_source` says one of these; for the Eurus-2 sets, which have it."""
    limit: Count | None = None
    """Keep a random subset of this size."""
    seed: Seed = 0
    """Seed of the subset."""
    paper_rows: bool = False
    """Only for dapo-math-raw: the paper's 17,917 rows, one for each index; repetitions and conflicts stay."""
    keep_truncated: bool = False
    """Keep problems whose answer was cut off by the publisher (unbalanced braces)."""
    prompt: PromptStyle = "plain"
    """How its problems are put to a policy."""

    @model_validator(mode="after")
    def _switches(self) -> "HubSet":
        if self.data_sources and not self.source.startswith("eurus2"):
            raise KeyedError(
                "data_sources", f"found with source '{self.source}'; allowed: only with the sources eurus2-…"
            )
        if self.paper_rows and self.source != "dapo-math-raw":
            raise KeyedError(
                "paper_rows", f"found true with source '{self.source}'; allowed: only with source dapo-math-raw"
            )
        return self

    @property
    def is_code(self) -> bool:
        """Whether its problems are graded by running programs."""
        return "code" in self.source

    def overlaps(self, other: Strict) -> bool:
        """Whether the two publish the same problems; what else they share is left to decontamination."""
        return isinstance(other, HubSet) and (
            self.source == other.source or any({self.source, other.source} <= shared for shared in _SHARED)
        )


class FileSet(Strict):
    """Problems with answers in a file of one's own; docs/extending.md."""

    kind: Literal["file"]
    path: Annotated[str, Field(pattern=PROBLEMS_PATTERN)]
    """A .jsonl, .csv or .parquet file with a row per problem, relative to the folder where Snakemake runs."""
    problem: str = "problem"
    """Column of the text that the policy is asked."""
    answer: str = "answer"
    """Column of the answer."""
    prompt: PromptStyle = "plain"
    """How its problems are put to a policy."""

    @model_validator(mode="after")
    def _two_columns(self) -> "FileSet":
        if self.problem == self.answer:
            raise KeyedError("answer", f"found '{self.answer}', the problem's column; allowed: another column")
        return self

    def overlaps(self, other: Strict) -> bool:
        """Whether the two are one file; what else they share is left to decontamination."""
        return isinstance(other, FileSet) and os.path.abspath(self.path) == os.path.abspath(other.path)


class JoinedSet(Strict):
    """Several data sets as one, such as all test sets of a validation. A problem of two parts counts twice."""

    kind: Literal["joined"]
    parts: Annotated[list[str], Field(min_length=2)]
    """Names from `data`."""
    prompt: PromptStyle = "plain"
    """How its problems are put to a policy, whatever the parts say."""

    @model_validator(mode="after")
    def _once(self) -> "JoinedSet":
        repeated = [name for name in self.parts if self.parts.count(name) > 1]
        if repeated:
            raise KeyedError("parts", f"'{repeated[0]}' is written twice")
        return self


class HubModel(Strict):
    """A published base model, used where it was downloaded to; its weights are not copied."""

    kind: Literal["hub"]
    id: Annotated[str, Field(pattern=REPOSITORY_PATTERN)]
    """Repository on the hub, such as Qwen/Qwen2.5-7B."""
    revision: Revision = "main"
    """Commit (best), tag or branch."""
    folder: str | None = None
    """Use this local copy of the repository instead of the hub."""
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """Jinja template of a prompt, in place of the tokenizer's own; needed where the repository has none."""


SingleSet = ArithmeticSet | ProgramSet | HubSet | FileSet
DataSet = Annotated[
    SingleSet | JoinedSet,
    Field(description="A data set.", discriminator="kind"),
]
Model = Annotated[TinyModel | HubModel, Field(description="A base model.", discriminator="kind")]
