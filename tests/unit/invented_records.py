"""Records of executions as stages would leave them, for the tests of what reads them."""

import dataclasses
import hashlib
import json

from entropy_mechanism.tracking.records import File, Record


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def entry(path, content):
    """A file, or of a mapping a folder, as a record has it."""
    base, path = ("cwd", path.removeprefix("cwd:")) if path.startswith("cwd:") else ("results", path)
    if isinstance(content, dict):
        tree = {name: digest(text) for name, text in sorted(content.items())}
        return File(path, base, digest("".join(f"{d}  {n}\n" for n, d in tree.items())), 1, tree)
    return File(path, base, digest(content), len(content))


class Past:
    """Writes records as stages would, one minute after the other."""

    def __init__(self, results):
        self.results = results
        self.minute = 0

    def stage(self, stage, key, inputs=(), outputs=(), artifacts=(), status="FINISHED", lasts=30, **params):
        """Record one execution; inputs and outputs are mappings from path to content. Returns its id."""
        self.minute += 1
        moment = f"2026-01-01T{self.minute // 60:02}:{self.minute % 60:02}"
        name = f"{moment.replace('-', '').replace(':', '')}00.000000Z-{self.minute:08x}"
        made = tuple(entry(*item) for item in dict(outputs).items())
        record = Record(
            record_id=name,
            stage=stage,
            key=key,
            status=status,
            started=f"{moment}:00+00:00",
            ended=None if status == "RUNNING" else f"{moment}:{lasts:02}+00:00",
            seconds=float(lasts),
            error=None,
            traceback=None,
            invocation=None,
            params=params,
            inputs=tuple(entry(*item) for item in dict(inputs).items()),
            declared=tuple(File(file.path, file.base) for file in made),
            outputs=made if status == "FINISHED" else (),
            artifacts=tuple(entry(*item) for item in dict(artifacts).items()),
            series=(),
            environment={"python": "3.11.7", "host": "here", "platform": "Linux", "packages": {"torch": "2.13.0"}},
            git={"revision": "0123456789abcdef", "dirty": True, "changes": "feedc0de"},
            command=(),
            process={"host": "here", "pid": 1, "birth": None},
        )
        self.put(f"records/{stage}/{name}.json", json.dumps(dataclasses.asdict(record)))
        return name

    def put(self, path, content):
        """The file as it stands on disk."""
        (self.results / path).parent.mkdir(parents=True, exist_ok=True)
        (self.results / path).write_text(content)
        return self.results / path
