"""Local copies of hub repositories, made from rows, that `datasets` and `read_published` load as the real ones."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from entropy_mechanism.config import HubSet
from entropy_mechanism.data.published import read_published
from entropy_mechanism.data.sources import SOURCES


def write_copy(
    folder: Path, name: str, rows: list[dict], split: str | None = None, config: str | None = None
) -> Path:
    """A copy of a source's repository, or of its file, that holds `rows`."""
    source = SOURCES[name]
    folder.mkdir(parents=True, exist_ok=True)
    if source.is_file:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / source.place.rpartition("/")[2]).write_text(lines, encoding="utf-8")
        return folder
    split, config = split or source.split, config or source.config or "default"
    data_files = [{"split": split, "path": f"{config}/{split}-*.parquet"}]
    card = yaml.safe_dump({"configs": [{"config_name": config, "data_files": data_files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n", encoding="utf-8")
    (folder / config).mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / config / f"{split}-00000-of-00001.parquet")
    return folder


def settings(name: str, folder: Path | None = None, **changes) -> HubSet:
    """Settings of a hub set; strict validation as for a file."""
    where = {"folder": str(folder)} if folder else {}
    return HubSet.model_validate({"kind": "hub", "source": name, **where, **changes})


def read(name, folder, rows, **changes):
    changes = {"rows": len(rows)} | changes
    return read_published(settings(name, write_copy(folder, name, rows), **changes))


def problems(name, folder, rows, **changes):
    return read(name, folder, rows, **changes)[0]


def gsm(question, answer):
    return {"question": question, "answer": f"So it is.\n#### {answer}" if answer is not None else None}
