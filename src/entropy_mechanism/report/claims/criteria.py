"""How a claim becomes a verdict: criteria with bounds that stand in code and do not depend on any result."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from .evidence import Estimate, Evidence, NotMeasured

AGREES, IN_PART, DISAGREES, NOT_MEASURED = (
    "agrees",
    "agrees in part",
    "disagrees",
    "not measured in this experiment",
)
VERDICTS = (AGREES, IN_PART, DISAGREES, NOT_MEASURED)
CLEAR, LIKELY, OPEN = "clear", "likely", "open"
ENOUGH_SEEDS = 3

RULES = (
    "Every claim is split into criteria, each a number with a bound; claims, criteria and bounds stand in the "
    "code and do not depend on any result.",
    "“Agrees”: every criterion was measured and is met; “disagrees”: none that was measured is met; “agrees in "
    "part”: some are met, and others are not, or were not measured; “not measured in this experiment”: none was.",
    "A verdict goes by the numbers themselves; how sure it is goes by their intervals.",
    f"“Clear”: every interval lies on one side of its bound, over at least {ENOUGH_SEEDS} seeds, or the number is "
    f"exact; “likely”: the same with fewer seeds; “open”: some interval crosses its bound, or there is none, or a "
    "criterion was not measured.",
    "Intervals are of 95 %: of Student's t over runs or pairs of runs, of Wilson for shares, and within a single "
    "run the bootstrap interval of its analysis; they take no account of how many claims are judged at once.",
)
"""The rules of all verdicts, one sentence each, as the report shows them."""


@dataclass(frozen=True)
class Unit:
    """How a number is written: times `scale`, with `digits` decimals (None: three significant), and a suffix."""

    suffix: str = ""
    scale: float = 1.0
    digits: int | None = None
    signed: bool = False

    def text(self, value: float, suffix: bool = True) -> str:
        """The number as the page shows it; a dash when it is not a number."""
        if math.isnan(value):
            return "–"
        scaled = self.scale * value
        sign = "+" if self.signed else ""
        number = f"{scaled:{sign}.3g}" if self.digits is None else f"{scaled:{sign}.{self.digits}f}"
        if "e" in number:
            number = f"{scaled:{sign}.0f}" if abs(scaled) >= 1 else f"{scaled:{sign}.1g}"
        return number.replace("-", "−") + (self.suffix if suffix else "")


PLAIN = Unit()
PERCENT = Unit(" %", 100, 0)
POINTS = Unit(" points", 100, 1)
GAIN = Unit(" points", 100, 1, signed=True)
SLOPE = Unit(digits=2)
TIMES = Unit(" times")
TOKENS = Unit(" tokens", digits=1, signed=True)


@dataclass(frozen=True)
class Bound:
    """What a number has to satisfy; `low` and `high` are allowed values themselves unless `strict`."""

    low: float = -math.inf
    high: float = math.inf
    strict: bool = False

    def holds(self, value: float) -> bool:
        """Whether the number is within."""
        if self.strict:
            return self.low < value < self.high
        return self.low <= value <= self.high

    def decided(self, low: float, high: float) -> bool:
        """Whether a whole interval is on one side: all within, or all outside on the same side."""
        if math.isnan(low) or math.isnan(high):
            return False
        if self.holds(low) and self.holds(high):
            return True
        return high < self.low or low > self.high or (self.strict and (high <= self.low or low >= self.high))

    def text(self, unit: Unit) -> str:
        """In words, as in `at least 50 %`."""
        low, high = math.isfinite(self.low), math.isfinite(self.high)
        if low and high:
            return f"between {unit.text(self.low, suffix=False)} and {unit.text(self.high)}"
        if low:
            return f"{'above' if self.strict else 'at least'} {unit.text(self.low)}"
        return f"{'below' if self.strict else 'at most'} {unit.text(self.high)}"


def above(value: float) -> Bound:
    """Greater than `value`."""
    return Bound(low=value, strict=True)


def below(value: float) -> Bound:
    """Less than `value`."""
    return Bound(high=value, strict=True)


def at_least(value: float) -> Bound:
    """`value` or more."""
    return Bound(low=value)


def at_most(value: float) -> Bound:
    """`value` or less."""
    return Bound(high=value)


def between(low: float, high: float) -> Bound:
    """From `low` to `high`, both allowed."""
    return Bound(low, high)


Measure = Callable[[Evidence], Estimate]
Published = float | str | Callable[[Evidence], float | str]


@dataclass(frozen=True)
class Criterion:
    """One number of a claim, and what it has to be.

    `measure` returns the number or raises NotMeasured. `published` is the paper's own number in the same unit, a
    short text where it has none, or how to get it from the fits of its curves.
    """

    name: str
    bound: Bound
    measure: Measure
    published: Published = "not given"
    unit: Unit = PLAIN


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or one that it rests on and its referees asked about.

    `items` are the figures and tables of this project that show it. The first criterion that is measured stands in
    the overview.
    """

    key: str
    statement: str
    source: str
    criteria: tuple[Criterion, ...]
    items: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """When it agrees, in one sentence made from the bounds."""
        parts = [f"{entry.name} {entry.bound.text(entry.unit)}" for entry in self.criteria]
        return "Agrees if: " + "; ".join(parts) + "."


@dataclass(frozen=True)
class Finding:
    """What one criterion came to: an estimate, or the reason why there is none."""

    criterion: Criterion
    estimate: Estimate | None
    published: str
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bound holds; None when nothing was measured."""
        return None if self.estimate is None else self.criterion.bound.holds(self.estimate.value)

    @property
    def decided(self) -> bool:
        """Whether the interval leaves no doubt on which side of the bound the number is."""
        found = self.estimate
        return found is not None and (found.exact or self.criterion.bound.decided(found.low, found.high))

    @property
    def obtained(self) -> str:
        """The number with its interval."""
        if self.estimate is None:
            return "–"
        unit, found = self.criterion.unit, self.estimate
        if math.isnan(found.low) or math.isnan(found.high) or found.low == found.high:
            return unit.text(found.value)
        low, high = (unit.text(value, suffix=False) for value in (found.low, found.high))
        return f"{unit.text(found.value)} [{low}, {high}]"

    @property
    def basis(self) -> str:
        """What the number rests on: `mean of 3 runs, 3 seeds`; or why it is missing."""
        return self.reason if self.estimate is None else self.estimate.basis


@dataclass(frozen=True)
class Judged:
    """A claim with what was found."""

    claim: Claim
    findings: tuple[Finding, ...]

    @cached_property
    def measured(self) -> tuple[Finding, ...]:
        """The findings that have a number."""
        return tuple(finding for finding in self.findings if finding.estimate is not None)

    @cached_property
    def estimates(self) -> tuple[Estimate, ...]:
        """Their numbers, in the same order."""
        return tuple(finding.estimate for finding in self.findings if finding.estimate is not None)

    @property
    def leading(self) -> Finding:
        """The finding that stands for the claim in the overview: the first that was measured, or the first."""
        return (*self.measured, *self.findings)[0]

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        if not self.measured:
            return NOT_MEASURED
        met = [finding.met for finding in self.findings]
        return AGREES if all(met) else IN_PART if any(met) else DISAGREES

    @property
    def certainty(self) -> str:
        """CLEAR, LIKELY or OPEN; empty when nothing was measured."""
        if not self.measured:
            return ""
        if len(self.measured) < len(self.findings) or not all(finding.decided for finding in self.measured):
            return OPEN
        return CLEAR if self.seeds is None or self.seeds >= ENOUGH_SEEDS else LIKELY

    @property
    def seeds(self) -> int | None:
        """The fewest seeds of any measured criterion; None when all of them are exact."""
        return min((estimate.seeds for estimate in self.estimates if not estimate.exact), default=None)

    @property
    def reasons(self) -> str:
        """Why it is as sure as it is, in a few words."""
        if not self.measured:
            return "; ".join(dict.fromkeys(finding.reason for finding in self.findings))
        said = []
        if self.seeds is not None:
            said.append(f"{self.seeds} {'seed' if self.seeds == 1 else 'seeds'}")
        if all(estimate.exact for estimate in self.estimates):
            said.append("exact")
        bare = [not estimate.exact and math.isnan(estimate.low) for estimate in self.estimates]
        crossing = [not finding.decided and not alone for finding, alone in zip(self.measured, bare, strict=True)]
        count = len(self.measured)
        if any(crossing):
            said.append(f"{sum(crossing)} of {count} intervals cross their bound")
        if any(bare):
            said.append(f"{sum(bare)} of {count} without an interval")
        if missing := len(self.findings) - count:
            said.append(f"{missing} of {len(self.findings)} not measured")
        return ", ".join(said)


def judge(claims: Iterable[Claim], evidence: Evidence) -> tuple[Judged, ...]:
    """Measure every criterion of every claim. A missing file, column or run is a reason, never an error."""
    return tuple(Judged(claim, tuple(_find(entry, evidence) for entry in claim.criteria)) for claim in claims)


def _find(criterion: Criterion, evidence: Evidence) -> Finding:
    published = _published(criterion, evidence)
    try:
        estimate = criterion.measure(evidence)
    except NotMeasured as reason:
        return Finding(criterion, None, published, str(reason))
    if math.isnan(estimate.value):
        return Finding(criterion, None, published, "undefined: too few points, or no variation")
    return Finding(criterion, estimate, published)


def _published(criterion: Criterion, evidence: Evidence) -> str:
    published = criterion.published
    try:
        value = published(evidence) if callable(published) else published
    except NotMeasured:
        return "–"
    return value if isinstance(value, str) else criterion.unit.text(value)
