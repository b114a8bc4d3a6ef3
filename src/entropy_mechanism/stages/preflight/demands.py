"""What the jobs of a plan ask a cluster for, once profile and site have had their say."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from entropy_mechanism import memory, resources
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.preflight.cluster import Need

FILES = ("profile.yaml", "config.yaml")


def read_profiles(names: Sequence[str]) -> dict[str, Any]:
    """The profiles' settings as Snakemake merges them: a later one's top-level keys replace an earlier one's.

    Raises FileNotFoundError, or OSError for a file that is no profile.
    """
    import yte

    merged: dict[str, Any] = {}
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            path = next((path / file for file in FILES if (path / file).is_file()), path)
        try:
            with path.open() as handle:
                merged |= yte.process_yaml(handle, require_use_yte=True) or {}
        except OSError:
            raise FileNotFoundError(
                f"no profile {name} here; allowed: a folder with config.yaml, or a file"
            ) from None
        except Exception as error:  # whatever the expressions in it raise
            raise OSError(f"{path} is no profile: {' '.join(str(error).split())}") from error
    return merged


def set_resources(profile: Mapping[str, Any], key: str, rule: str | None = None) -> dict[str, Any]:
    """The resources that a profile sets by default, or for a rule, in either of YAML's forms."""
    values = profile.get(key) or {}
    if isinstance(values, Mapping):
        found = values.get(rule, {}) if rule else values
        return dict(found or {})
    pairs = [(name, value) for name, sign, value in (str(part).partition("=") for part in values) if sign]
    if rule:
        pairs = [(name.split(":", 1)[1], value) for name, value in pairs if name.startswith(f"{rule}:")]
    return dict(pairs)


def needs(plan: Plan, gpu_type: str | None, profile: Mapping[str, Any]) -> list[Need]:
    """What trainings, answers and all other jobs ask for; each kind once."""
    partition = set_resources(profile, "default-resources").get("slurm_partition")
    merged: dict[Need, list[str]] = {}
    for need in (*_policies(plan, gpu_type), *_groups(plan, profile)):
        need = replace(need, partition=str(partition) if partition else None)
        if need.rule:
            need = _changed(need, set_resources(profile, "set-resources", need.rule))
        merged.setdefault(replace(need, what=""), []).append(need.what)
    return [
        replace(need, what=names[0] + (f" and {len(names) - 1} like it" if len(names) > 1 else ""))
        for need, names in merged.items()
    ]


def _policies(plan: Plan, gpu_type: str | None) -> Iterator[Need]:
    """What every training asks for, and every policy that answers benchmarks."""
    for name in plan.runs:
        run = plan.run_config(name)
        shape = memory.known_shape(plan.experiment.models[run.model])
        yield _need(f"training {name}", "train", resources.training(run, shape, gpu_type))
    for number, policies in enumerate(plan.benchmark_sets.values(), start=1):
        rule = "sample" if number == 1 else f"sample_{number}"
        for name in policies:
            model = plan.policies[name].model
            shape = memory.known_shape(plan.experiment.models[model])
            asked = resources.sampling(plan.experiment.compute_of(model), shape, gpu_type)
            yield _need(f"answers of {name}", rule, asked)


def _groups(plan: Plan, profile: Mapping[str, Any]) -> Iterator[Need]:
    """What groups of small jobs ask for.

    As many run at a time as the profile's `cores`: layers, whose time limits add up.
    """
    defaults = set_resources(profile, "default-resources")
    minutes, mem_mb = _minutes(defaults.get("runtime"), 30), _whole(defaults.get("mem_mb"), 4000)
    width = _whole(profile.get("cores"), 1)
    most = max(map(len, plan.benchmark_sets), default=0)
    for what, levels in (
        ("analyses of a run", (2, 2)),
        ("scores of a policy", (most, 1)),
        ("figures, tables and report", (len(plan.items), 1)),
    ):
        layers, abreast = sum(math.ceil(jobs / width) for jobs in levels), min(width, max(levels))
        yield Need(what, "", layers * minutes, abreast, abreast * mem_mb)


def _need(what: str, rule: str, asked: resources.Resources) -> Need:
    return Need(what, rule, asked.minutes, asked.cores, asked.mem_mb, asked.nodes, asked.gres)


def _changed(need: Need, site: Mapping[str, Any]) -> Need:
    """What a site sets for a rule takes the place of what the rule asks for."""
    return replace(
        need,
        minutes=_minutes(site.get("runtime"), need.minutes),
        cores=_whole(site.get("cpus_per_task"), need.cores),
        mem_mb=_whole(site.get("mem_mb"), need.mem_mb),
        nodes=_whole(site.get("nodes"), need.nodes),
        gres=str(site["gres"]) if site.get("gres") else need.gres,
        partition=str(site["slurm_partition"]) if site.get("slurm_partition") else need.partition,
    )


def _whole(value: Any, usual: int) -> int:
    """A number as it is written; what has to be computed first is taken to be as usual."""
    return int(value) if str(value).isdigit() else usual


def _minutes(value: Any, usual: float) -> float:
    """Minutes, also written as `12h` or `1d`."""
    import humanfriendly

    if value is None:
        return usual
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return humanfriendly.parse_timespan(str(value)) / 60
    except humanfriendly.InvalidTimespan:
        return usual
