"""The figures and tables that an experiment may list, and what it says about each."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from entropy_mechanism import own_code
from entropy_mechanism.config_errors import FILE_PATTERN, FILLED_IN, OWN_PATTERN, KeyedError, options, shown
from entropy_mechanism.paths import FIXED, RUN_ANALYSES, STUDIES
from entropy_mechanism.settings import RunFilter

FigureName = Literal[
    "fig01",
    "fig02",
    "fig03",
    "fig04",
    "fig05",
    "fig06",
    "fig07",
    "fig08",
    "fig09",
    "fig10",
    "fig11",
    "fig12",
    "fig13",
    "fig14",
    "ceiling",
    "theory",
    "entropy_change",
]
TableName = Literal[
    "table1",
    "table2",
    "selection",
    "comparison",
    "forms",
    "forecasts",
    "common_law",
    "ceiling_test",
    "covariance_grid",
]
SCORED = ("table2", "comparison")
"""Tables of benchmark scores."""
OWN = "own_"
"""What names of figures of one's own begin with, so that none is a rule's or a later figure's of the project."""
INPUTS = (*RUN_ANALYSES, *STUDIES, *FIXED, "scores", "comparison")
"""Files that a figure may be drawn from; docs/architecture.md lists their columns."""


def _known(name: str) -> str:
    if name in get_args(TableName):
        raise ValueError(f"{name} is a table; it belongs under `tables`")
    if name not in get_args(FigureName) and not re.fullmatch(OWN_PATTERN, name):
        known = options(name, get_args(FigureName))
        raise ValueError(f"found {shown(name)}; {known}; or {OWN}… (letters, digits, _) for one of your own")
    return name


def _no_figure(name: Any) -> Any:
    if name in get_args(FigureName) or (isinstance(name, str) and name.startswith(OWN)):
        raise ValueError(f"{name} is a figure; it belongs under `figures`")
    return name


FigureKey = Annotated[str, AfterValidator(_known)]
TableKey = Annotated[TableName, BeforeValidator(_no_figure)]
FIGURE_KEYS: dict[str, Any] = {
    "propertyNames": {"anyOf": [{"enum": list(get_args(FigureName))}, {"pattern": OWN_PATTERN}]}
}
"""What the JSON schema says of the keys."""


class FigureRuns(RunFilter):
    """Which runs a figure shows and, for one whose name begins with `own_`, what draws it (docs/extending.md)."""

    code: Annotated[str, Field(pattern=FILE_PATTERN)] | None = Field(None, exclude_if=lambda value: value is None)
    """For `own_…`: a file with TITLE, CAPTION, data(frames) and draw(frames)."""
    inputs: list[str] | None = Field(None, exclude_if=lambda value: value is None)
    """For `own_…`: the analysis files that it is drawn from, such as curves and runs."""
    sha256: str | None = Field(None, exclude_if=lambda value: value is None, json_schema_extra=FILLED_IN)
    """For `own_…`: of the file; filled in when the experiment is read."""

    @property
    def options(self) -> list[str]:
        """What the command that draws it is told of its file; nothing for a figure of the project."""
        return ["--code", self.code, "--sha256", self.sha256 or ""] if self.code else []

    @model_validator(mode="before")
    @classmethod
    def _own(cls, raw: Any) -> Any:
        own_code.refuse_digest(raw)
        if not isinstance(raw, dict) or not isinstance(raw.get("code"), str) or not raw["code"].endswith(".py"):
            return raw
        digest, defined = own_code.defined(raw["code"])
        missing = [name for name in ("TITLE", "CAPTION", "data", "draw") if name not in defined]
        if missing:
            raise KeyedError("code", f"{raw['code']} does not define {', '.join(missing)}, which a figure needs")
        return raw | {"sha256": digest}

    @model_validator(mode="after")
    def _inputs(self) -> "FigureRuns":
        if (self.code is None) != (self.inputs is None):
            missing = "inputs" if self.inputs is None else "code"
            raise KeyedError(missing, "required key is missing beside the other")
        for position, name in enumerate(self.inputs or ()):
            if name not in INPUTS:
                raise KeyedError(f"inputs[{position}]", f"{shown(name)} is no analysis; {options(name, INPUTS)}")
        return self
