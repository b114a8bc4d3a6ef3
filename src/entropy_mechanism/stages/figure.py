"""Analysis files -> one figure or table, its data, its caption and the runs it shows."""

import os
from pathlib import Path
from types import ModuleType

import pandas as pd

from entropy_mechanism import files, own_code, tracking
from entropy_mechanism.figures import registry, style


def figure(
    name: str,
    frames: list[str],
    outputs: list[str],
    results: Path,
    code: str | None = None,
    sha256: str | None = None,
) -> None:
    """Draw a figure: pdf, png, svg, csv (what is drawn) and json (title, caption, runs), in this order.

    `code` is the file of a figure of one's own, which must have the digest `sha256` where that is given.
    """
    if not code:
        registry.entry(name)
    paths = [Path(path) for path in outputs]
    with tracking.stage("figure", name, results=results, inputs=frames, outputs=paths):
        module = own_code.module(code, sha256 or files.sha256(code)) if code else registry.load(name)
        tables = files.read_frames(frames)
        drawn = module.draw(tables)
        *pictures, csv, description = paths
        for picture in pictures:
            style.save(drawn, picture)
        files.write_text(csv, module.data(tables).to_csv(index=False))
        files.write_json(description, _describe(name, module, tables, frames, description.parent))


def table(name: str, frames: list[str], outputs: list[str], results: Path) -> None:
    """Write a table: csv, md and json (title, caption, runs), in this order."""
    registry.entry(name)
    paths = [Path(path) for path in outputs]
    with tracking.stage("table", name, results=results, inputs=frames, outputs=paths):
        module = registry.load(name)
        tables = files.read_frames(frames)
        content = module.table(tables)
        csv, markdown, description = paths
        files.write_text(csv, content.to_csv(index=False))
        files.write_text(markdown, style.markdown(module.display(content)))
        files.write_json(description, _describe(name, module, tables, frames, description.parent))


def _describe(
    name: str, module: ModuleType, tables: dict[str, pd.DataFrame], frames: list[str], folder: Path
) -> dict[str, object]:
    """What a reader of the figure needs to know; the digests tell whether it is older than its inputs.

    Inputs are named from `folder`, where the description stands: results may be moved.
    """
    return {
        "name": name,
        "title": module.TITLE,
        "caption": module.CAPTION,
        "runs": sorted({run for table in tables.values() if "run" in table for run in table["run"]}),
        "data": f"{name}.csv",
        "inputs": {Path(os.path.relpath(path, folder)).as_posix(): files.sha256(path) for path in frames},
    }
