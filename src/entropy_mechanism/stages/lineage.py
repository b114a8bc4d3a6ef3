"""What were these files made from, and what was made from them?"""

from json import dumps
from pathlib import Path

from entropy_mechanism import tracking
from entropy_mechanism.tracking.history import History
from entropy_mechanism.tracking.lineage import as_json, as_text, trace


def lineage(asked: list[str], descendants: bool, json: bool, results: Path) -> None:
    """Print the ancestors, or descendants, of files and executions as a tree, or as JSON.

    Raises FileNotFoundError for a results folder without records, and what `trace` raises.
    """
    tracking.require_records(results)
    history = History(results)
    found = [trace(history, name, descendants=descendants) for name in asked]
    if json:
        print(dumps([as_json(item, history) for item in found], indent=1, ensure_ascii=False))
        return
    for number, item in enumerate(found):
        print("\n".join(["", *as_text(item, history)] if number else as_text(item, history)))
