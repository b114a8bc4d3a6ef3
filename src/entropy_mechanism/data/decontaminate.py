"""Which problems of a test set stand in a training set: by shared word n-grams, or for short ones word by word.

The n-grams of all test problems are indexed, then the training problems pass by once, so the cost is the number of
words on both sides and not the number of pairs.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from entropy_mechanism.config import Decontamination
from entropy_mechanism.data.normalise import strict_key, words
from entropy_mechanism.data.problems import Problem

COLUMNS = ("tested_set", "problem_id", "train_id", "match", "share")
SUMMARY_COLUMNS = ("train_set", "tested_set", "problems", "contained", "exact", "ids")


def contained(
    tested_sets: Mapping[str, Sequence[Problem]], train_set: Iterable[Problem], settings: Decontamination
) -> pd.DataFrame:
    """The test problems that a training set contains, one row each (COLUMNS), in the order of the test sets.

    `match` is `exact` where a training problem has the same text but for layout and punctuation, else `n-grams`:
    then at least `settings.share` of the test problem's different n-grams of `settings.words` words stand in one
    training problem, `train_id`, the one with the largest `share`. That one training problem has to hold them
    keeps a turn of phrase that many contests share from counting. A test problem with fewer words has no n-gram
    and only an exact match.
    """
    grams: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    sizes: dict[tuple[str, int], int] = {}
    exact: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, problems in tested_sets.items():
        for position, problem in enumerate(problems):
            exact[strict_key(problem.problem)].append((name, position))
            own = _grams(problem.problem, settings.words)
            sizes[name, position] = len(own)
            for gram in own:
                grams[gram].append((name, position))
    best: dict[tuple[str, int], tuple[bool, float, str]] = {}
    for problem in train_set:
        same = exact.get(strict_key(problem.problem), ())
        own = _grams(problem.problem, settings.words)
        shared = Counter(place for gram in own for place in grams.get(gram, ()))
        for place in {*same, *shared}:
            is_same = place in same
            share = 1.0 if is_same else shared[place] / sizes[place]
            if share >= settings.share and (place not in best or (is_same, share) > best[place][:2]):
                best[place] = (is_same, share, problem.id)
    rows = []
    for name, problems in tested_sets.items():
        for position, problem in enumerate(problems):
            if (name, position) in best:
                is_same, share, train_id = best[name, position]
                rows.append((name, problem.id, train_id, "exact" if is_same else "n-grams", share))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(COLUMNS[:4], "str") | {"share": "float64"})


def summary(found: pd.DataFrame, train_set: str, sizes: Mapping[str, int]) -> pd.DataFrame:
    """One row per test set, also for those that share nothing: sizes, and the ids of what is contained."""
    rows = []
    for name, size in sizes.items():
        here = found[found["tested_set"] == name]
        exact = int((here["match"] == "exact").sum())
        rows.append((train_set, name, size, len(here), exact, " ".join(here["problem_id"])))
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    """The different n-grams of a text's words."""
    found = words(text)
    return {tuple(found[start : start + n]) for start in range(len(found) - n + 1)}
