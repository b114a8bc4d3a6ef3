"""Everything that the checks before a start look at, asked at once and given up after `PATIENCE`."""

import getpass
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from entropy_mechanism.config import (
    ConfigError,
    HubModel,
    Site,
    experiment_path,
    load_experiment,
    load_site,
    read_yaml,
)
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.preflight import cluster, demands, places
from entropy_mechanism.stages.preflight.cluster import LATE, Cluster, Need

PATIENCE = 2.0
"""Seconds after which a question counts as not answered; all are asked at once."""
HUB = "https://huggingface.co"
FILE_SYSTEM = "file system of "
"""Begins the questions about what nodes share."""


@dataclass(frozen=True)
class Finding:
    """What was found and what to do about it. An error would stop the workflow, or let it hang."""

    level: Literal["error", "warning", "note"]
    text: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {' '.join(f'{self.text}; {self.cure}'.split()) if self.cure else self.text}"


@dataclass(frozen=True)
class Scene:
    """All that the checks look at; answers are values, `LATE`, or the OSError that came instead."""

    site: Site
    plan: Plan
    paths: Paths
    profile: Mapping[str, Any]
    cluster: Cluster | None
    """None where Slurm's commands are missing."""
    answers: Mapping[str, Any]

    @property
    def needs(self) -> list[Need]:
        """What the jobs ask for."""
        return demands.needs(self.plan, self.site.gpu_type, self.profile)

    @property
    def known(self) -> Cluster | None:
        """The cluster, where it has said what it consists of."""
        return self.cluster if self.cluster and self.cluster.answers and not self.cluster.unread else None

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Resources of jobs whose rules say nothing."""
        return demands.set_resources(self.profile, "default-resources")

    def hangs(self, *questions: str) -> bool:
        """Whether one of these was not answered, so that nothing there may be looked at again."""
        return any(self.answers[name] is LATE for name in questions)

    @property
    def downloads(self) -> list[HubModel]:
        """Published models that have not been fetched."""
        models = [(name, self.plan.experiment.models[name]) for name in self.plan.models]
        return [model for name, model in models if isinstance(model, HubModel) and not model.folder
                and not Path(self.paths.model(name)).exists()]  # fmt: skip


def look(experiment: Path | None, config: Sequence[str], profile: Sequence[str]) -> Scene:
    """Read the plan and ask everything at once; arguments and errors are those of `preflight`."""
    settings = cluster.together({"site": partial(_site, experiment, config)}, PATIENCE)["site"]
    if settings is LATE:
        raise ConfigError(
            f"the results folder, or this checkout, does not answer within {PATIENCE:g} s; look whether its file "
            "system is alive (`df` hangs too?)"
        )
    if isinstance(settings, Exception):
        raise settings
    site, path = settings
    plan = Plan(load_experiment(path))
    paths = Paths(Path(site.results), path.stem)
    hub = os.environ.get("HF_ENDPOINT", HUB)
    questions: dict[str, Callable[[], Any]] = {
        "profile": partial(demands.read_profiles, profile),
        "results": partial(places.writable, paths.root),
        "free": partial(places.free, paths.root),
        "free for downloads": partial(places.free, hub_cache()),
        "hub": partial(places.reach, hub),
    }
    for name, folder in shared_places(plan, paths).items():
        questions[FILE_SYSTEM + name] = partial(places.file_system, folder)
    if (site.tracking_uri or "").startswith("http"):
        questions["tracking"] = partial(places.reach, site.tracking_uri)
    here = all(map(shutil.which, cluster.PROGRAMS))
    accounting = {name: command for name, command in _accounting().items() if shutil.which(name)}
    for name, command in ((cluster.QUESTIONS if here else {}) | accounting).items():
        questions[name] = partial(cluster.said, *command)
    answers = cluster.together(questions, PATIENCE)
    profiles = answers["profile"] if isinstance(answers["profile"], Mapping) else {}
    if isinstance(answers["profile"], OSError):
        raise ConfigError(f"--profile: {answers['profile']}")
    for answer in answers.values():
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise answer
    replies = {name: cluster.reply(answers[name]) for name in cluster.QUESTIONS if here}
    return Scene(site, plan, paths, profiles, cluster.described(replies) if here else None, answers)


def hub_cache() -> Path:
    """The folder where downloads from the hub are kept."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(home).expanduser() / "hub"


def shared_places(plan: Plan, paths: Paths) -> dict[str, Path]:
    """What nodes read and write, by name."""
    found = {"results": paths.root, "the checkout": Path.cwd(), "Python's environment": Path(sys.prefix)}
    models = [plan.experiment.models[name] for name in plan.models]
    if any(isinstance(model, HubModel) and not model.folder for model in models):
        found["the hub's cache"] = hub_cache()
    return found


def _user() -> str:
    """The user's name; the number where it has none, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return str(os.getuid())


def _accounting() -> dict[str, tuple[str, ...]]:
    """What Slurm's accounting is asked, by the command that asks."""
    user = f"user={_user()}"
    return {
        "sacct": ("sacct", "--noheader", "--allocations", "--format=jobid", "--starttime=now"),
        "sacctmgr": ("sacctmgr", "--noheader", "--parsable2", "show", "associations", user,
                     "format=account,partition,qos"),
    }  # fmt: skip


def _site(experiment: Path | None, config: Sequence[str]) -> tuple[Site, Path]:
    import yaml

    raw = read_yaml("config/config.yaml")
    for pair in config:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--config: found {pair}; allowed: key=value, such as experiment=paper")
        raw[key] = yaml.safe_load(value)
    if experiment is not None:
        raw["experiment"] = str(experiment)
    site = load_site(raw)
    return site, experiment_path(site.experiment)
