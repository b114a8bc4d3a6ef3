"""The tables of docs/performance.md from benchmarks/results/*.json; printed and written between the page's marks.

    python benchmarks/page.py

A mark is a line `<!-- topic -->`, its table ends at `<!-- end -->`; `goals` collects the goals of all topics. The
page says what the figures mean; a topic without results says how to get them.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).resolve().parents[1] / "docs/performance.md"
MARK = re.compile(r"(<!-- (?P<topic>[a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(value: Any) -> str:
    """Three significant digits, and no more than the unit for large numbers; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 100 or isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a table; columns as in the first row."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([number(row[name]) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def topic_text(found: dict[str, Any]) -> str:
    """All tables of a topic, and where and when they were measured."""
    machine, versions = found["machine"], found["versions"]
    where = [machine["processor"], f"{machine['cores']} cores", machine["gpu"]]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "commit")
    parts = [(f"*{title}*\n\n" if title else "") + markdown(rows) for title, rows in found["tables"].items()]
    note = f"{found['date'][:10]}, {', '.join(filter(None, where))}; {packages}; {found['seconds']:.0f} s"
    return "\n".join([*parts, f"Measured {note}.\n"])


def goals_text(results: dict[str, dict[str, Any]]) -> str:
    """Every goal that was measured."""
    rows = [
        {
            "goal": f"{goal['goal']}: {'at least' if goal['at_least'] else 'at most'} "
            f"{goal['limit']:g} {goal['unit']}".rstrip(),
            "measured": f"{number(goal['measured'])} {goal['unit']}".rstrip(),
            "met": "yes" if goal["met"] else "**no**",
        }
        for found in results.values()
        for goal in found["goals"]
    ]
    return markdown(rows) if rows else "Not measured yet: `make bench`.\n"


def read(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Results by topic."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def filled(page: str, results: dict[str, dict[str, Any]]) -> str:
    """The page with every table as the results have it. Raises ValueError for results that it does not show."""
    shown = {match["topic"] for match in MARK.finditer(page)}
    if missing := results.keys() - shown:
        raise ValueError(f"docs/performance.md has no mark <!-- {' -->, <!-- '.join(sorted(missing))} -->")

    def table(match: re.Match[str]) -> str:
        topic = match["topic"]
        if topic == "goals":
            text = goals_text(results)
        elif topic in results:
            text = topic_text(results[topic])
        else:
            text = f"Not measured yet: `make bench ARGS={topic}`.\n"
        return f"{match[1]}{text}{match[3]}"

    return MARK.sub(table, page)


def main() -> None:
    """Print the tables and write the page; or print those of another folder, given as argument."""
    if len(sys.argv) > 1:
        results = read(Path(sys.argv[1]))
    else:
        results = read()
        PAGE.write_text(filled(PAGE.read_text(), results))
    for topic, found in results.items():
        print(f"\n{topic}\n\n{topic_text(found)}")
    print(f"\n{goals_text(results)}")


if __name__ == "__main__":
    main()
