"""Lemma 1, Proposition 1 and Theorems 1 and 2 of arXiv 2505.22617 on softmax policies that are tables of logits.

Everything is exact in float64: objectives and their gradients, state distributions, entropies. What is left
between the paper's formulas and what an update does is the higher orders in its size, and what they leave out.
Shape suffixes: S states, A actions. Arrays are logits, policies or advantages, [S, A].
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

STEP_SIZES = tuple(np.geomspace(1e-4, 1e-1, 10))
INSTANCES = 8
FLOW_STEPS = 8
"""Runge-Kutta steps in which the gradient flow of Proposition 1 is followed."""
ROUNDING = 1e-12
"""Errors that are a smaller share of what is predicted are rounding."""
UPDATES, STEP_SIZE = 300, 0.2
"""Policy-gradient updates by which the counterexamples are followed."""
TABULAR_COLUMNS = ["check", "setting", "states", "form", "instance", "step_size", "exact", "predicted", "error"]
COUNTEREXAMPLE_COLUMNS = [
    *("case", "update", "probabilities", "advantages", "step_size", "covariance", "covariance_theorem_2"),
    *("entropy", "predicted", "entropy_change", "same_state_change", "objective"),
]


@dataclass(frozen=True)
class Problem:
    """A discounted Markov decision process with S states and A actions; with `discount` 0 a contextual bandit."""

    start_S: np.ndarray
    """Distribution of the first state."""
    reward_SA: np.ndarray
    transition_SAS: np.ndarray
    """Distribution of the next state."""
    discount: float = 0.0

    def visits(self, policy_SA: np.ndarray) -> np.ndarray:
        """Discounted state distribution d(s) of a policy, which sums to 1; [S]."""
        step_SS = np.einsum("sa,sat->st", policy_SA, self.transition_SAS)
        times_S = np.linalg.solve((np.eye(len(self.start_S)) - self.discount * step_SS).T, self.start_S)
        return (1 - self.discount) * times_S

    def action_values(self, policy_SA: np.ndarray, reward_SA: np.ndarray | None = None) -> np.ndarray:
        """Discounted sum of rewards (by default the problem's) from every state and action on; [S, A]."""
        reward_SA = self.reward_SA if reward_SA is None else reward_SA
        step_SS = np.einsum("sa,sat->st", policy_SA, self.transition_SAS)
        gain_S = (policy_SA * reward_SA).sum(1)
        value_S = np.linalg.solve(np.eye(len(self.start_S)) - self.discount * step_SS, gain_S)
        return reward_SA + self.discount * self.transition_SAS @ value_S

    def advantages(self, policy_SA: np.ndarray) -> np.ndarray:
        """Action values less their mean under the policy; [S, A]."""
        values_SA = self.action_values(policy_SA)
        return values_SA - (policy_SA * values_SA).sum(1, keepdims=True)

    def objective(self, logits_SA: np.ndarray) -> complex:
        """Expected discounted return; analytic in the logits, which may be complex."""
        policy_SA = softmax(logits_SA)
        return self.start_S @ (policy_SA * self.action_values(policy_SA)).sum(1)

    def gradient(self, logits_SA: np.ndarray) -> np.ndarray:
        """Gradient of the objective by complex steps: exact to rounding and free of the formulas to be checked."""
        gradient_SA = np.empty_like(logits_SA)
        for place in np.ndindex(logits_SA.shape):
            moved = logits_SA.astype(complex)
            moved[place] += 1e-30j
            gradient_SA[place] = self.objective(moved).imag / 1e-30
        return gradient_SA

    def natural_gradient(self, logits_SA: np.ndarray) -> np.ndarray:
        """Pseudo-inverse of the Fisher information times the gradient; the step of least norm, [S, A]."""
        policy_SA = softmax(logits_SA)
        parts = zip(self.visits(policy_SA), policy_SA, self.gradient(logits_SA), strict=True)
        return np.stack([np.linalg.pinv(d * (np.diag(p) - np.outer(p, p))) @ g for d, p, g in parts])

    def entropy(self, logits_SA: np.ndarray) -> float:
        """Entropy of the policy, nats, averaged over the states that it visits."""
        return float(self.visits(softmax(logits_SA)) @ entropies(logits_SA))


def softmax(logits_SA: np.ndarray) -> np.ndarray:
    """Policy of the logits, which may be complex; [S, A]."""
    weights_SA = np.exp(logits_SA - logits_SA.real.max(1, keepdims=True))
    return weights_SA / weights_SA.sum(1, keepdims=True)


def entropies(logits_SA: np.ndarray) -> np.ndarray:
    """Entropy of every state's actions, nats; [S]."""
    policy_SA = softmax(logits_SA)
    return -(policy_SA * np.log(policy_SA)).sum(1)


def covariances(policy_SA: np.ndarray, x_SA: np.ndarray, y_SA: np.ndarray) -> np.ndarray:
    """Cov_{a~pi(.|s)}(x, y) of every state; [S]."""
    centred_SA = x_SA - (policy_SA * x_SA).sum(1, keepdims=True)
    return (policy_SA * centred_SA * y_SA).sum(1)


def entropy_after(problem: Problem, policy_SA: np.ndarray) -> np.ndarray:
    """Discounted sum of the entropies of the states that follow a state and action; [S, A]."""
    entropy_S = -(policy_SA * np.log(policy_SA)).sum(1)
    return (
        problem.action_values(policy_SA, np.repeat(entropy_S[:, None], policy_SA.shape[1], 1)) - entropy_S[:, None]
    )


# --- the formulas against the exact change ------------------------------------------------------------------


def random_problem(kind: str, seed: int) -> tuple[Problem, np.ndarray]:
    """A `bandit` of 6 equally likely contexts and 8 actions, or an `mdp` of 5 states and 4 actions; and logits."""
    generator = np.random.default_rng([seed, len(kind)])
    states, actions, discount = (6, 8, 0.0) if kind == "bandit" else (5, 4, 0.8)
    start_S = np.full(states, 1 / states) if kind == "bandit" else generator.dirichlet(np.ones(states))
    problem = Problem(
        start_S,
        generator.normal(size=(states, actions)),
        generator.dirichlet(np.full(states, 0.5), size=(states, actions)),
        discount,
    )
    return problem, 1.5 * generator.normal(size=(states, actions))


def tabular(instances: int = INSTANCES, step_sizes: Sequence[float] = STEP_SIZES, seed: int = 0) -> pd.DataFrame:
    """Return the frame of tabular.parquet: every formula beside the exact change, over problems and step sizes.

    `exact` and `predicted` are entropy changes in nats, for Proposition 1 the largest change of a logit; `error`
    is their absolute difference, for Proposition 1 the largest over the logits. `states` says whether the exact
    change averages over the states that the old policy visits (`held`, as Lemma 1 does) or over those that each
    policy visits (`followed`), `form` which formula predicts it: `printed`, or `complete`, with what is left out.

    lemma-1: a step in a random direction. Complete adds Cov(Q_H, z' - z), with Q_H the discounted sum of the
    entropies that follow: to first order the change of the state distribution.
    proposition-1: the logits after following the gradient for as long as the step size (`states` is `flow`) or
    after one step along it (`one step`, where all error is rounding), against eta pi A.
    theorem-1, theorem-2: a step along the gradient, or the natural gradient. In a decision process complete
    multiplies by d(s) / (1 - gamma), or 1 / (1 - gamma). In a bandit of n equally likely contexts the step size is
    that of a context: a step of size eta is one of n eta along the gradient.
    """
    rows = []
    for kind in ("bandit", "mdp"):
        for instance in range(instances):
            problem, logits_SA = random_problem(kind, seed + instance)
            for row in _checks(problem, logits_SA, step_sizes, seed + instance):
                rows.append({"setting": kind, "instance": instance} | row)
    return pd.DataFrame(rows)[TABULAR_COLUMNS]


def _checks(
    problem: Problem, logits_SA: np.ndarray, step_sizes: Iterable[float], seed: int
) -> Iterator[dict[str, Any]]:
    policy_SA, bandit = softmax(logits_SA), problem.discount == 0
    logprob_SA, visits_S, advantage_SA = (
        np.log(policy_SA),
        problem.visits(policy_SA),
        problem.advantages(policy_SA),
    )
    direction_SA = np.random.default_rng([seed, 99]).normal(size=logits_SA.shape)
    contexts = len(visits_S) if bandit else 1

    def ascent(values_SA: np.ndarray) -> np.ndarray:
        return contexts * problem.gradient(values_SA)

    gradient_SA, natural_SA = ascent(logits_SA), problem.natural_gradient(logits_SA)
    follows_SA = entropy_after(problem, policy_SA)
    weighted_S = np.ones_like(visits_S) if bandit else visits_S / (1 - problem.discount)
    lemma = visits_S @ covariances(policy_SA, logprob_SA, direction_SA)
    theorem_1_S = covariances(policy_SA, logprob_SA, policy_SA * advantage_SA)
    theorem_2_S = covariances(policy_SA, logprob_SA, advantage_SA)
    of_states = visits_S @ covariances(policy_SA, follows_SA, direction_SA)
    steps = {"lemma-1": direction_SA, "theorem-1": gradient_SA, "theorem-2": natural_SA}
    slopes = {  # predicted change per step size
        ("lemma-1", "held", "printed"): -lemma,
        ("lemma-1", "followed", "printed"): -lemma,
        ("lemma-1", "followed", "complete"): -lemma + of_states,
        ("theorem-1", "held", "printed"): -visits_S @ theorem_1_S,
        ("theorem-1", "held", "complete"): -(visits_S * weighted_S) @ theorem_1_S,
        ("theorem-2", "held", "printed"): -visits_S @ theorem_2_S,
        ("theorem-2", "held", "complete"): -visits_S @ theorem_2_S / (1 - problem.discount),
    }
    before = problem.entropy(logits_SA)
    for size in step_sizes:
        for (check, states, form), slope in slopes.items():
            if bandit and (states, form) != ("held", "printed"):
                continue  # nothing is left out
            moved_SA = logits_SA + size * steps[check]
            held = float(visits_S @ entropies(moved_SA))
            exact = (held if states == "held" else problem.entropy(moved_SA)) - before
            names = {"check": check, "states": states, "form": form, "step_size": size}
            predicted = float(size * slope)
            yield names | {"exact": exact, "predicted": predicted, "error": abs(exact - predicted)}
        if bandit:
            predicted_SA = size * policy_SA * advantage_SA
            changes = {"one step": size * gradient_SA, "flow": _flow(ascent, logits_SA, size) - logits_SA}
            for states, change_SA in changes.items():
                yield {
                    "check": "proposition-1",
                    "states": states,
                    "form": "printed",
                    "step_size": size,
                    "exact": float(np.abs(change_SA).max()),
                    "predicted": float(np.abs(predicted_SA).max()),
                    "error": float(np.abs(change_SA - predicted_SA).max()),
                }


def _flow(slope: Callable[[np.ndarray], np.ndarray], start: np.ndarray, time: float) -> np.ndarray:
    """Where dz/dt = slope(z) leads in `time`, by the classical Runge-Kutta method."""
    z, h = start, time / FLOW_STEPS
    for _ in range(FLOW_STEPS):
        one = slope(z)
        two = slope(z + h / 2 * one)
        three = slope(z + h / 2 * two)
        z = z + h / 6 * (one + 2 * two + 2 * three + slope(z + h * three))
    return z


def error_slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """Slope of log error on log step size for every check, setting, states and form; one row each.

    Columns: these four, then `slope`, the median over instances, and `lowest` and `highest`. What has no error but
    rounding has no slope and no row.
    """
    keys = ["check", "setting", "states", "form"]
    inexact = frame[frame["error"] > ROUNDING * frame["predicted"].abs()]
    found = [
        (*names, np.polyfit(np.log(rows["step_size"]), np.log(rows["error"]), 1)[0])
        for names, rows in inexact.groupby([*keys, "instance"], sort=False)
    ]
    slopes = pd.DataFrame(found, columns=[*keys, "instance", "slope"]).groupby(keys, sort=False)["slope"]
    return slopes.agg(slope="median", lowest="min", highest="max").reset_index()


# --- covariance and entropy in constructed cases ------------------------------------------------------------


def bandit(probabilities: Sequence[float], rewards: Sequence[float]) -> tuple[Problem, np.ndarray]:
    """One state with a policy of these probabilities, and its logits."""
    actions = len(probabilities)
    problem = Problem(np.ones(1), np.array([rewards], float), np.ones((1, actions, 1)))
    return problem, np.log([probabilities])


def open_states() -> tuple[Problem, np.ndarray]:
    """Rewarded is the likely action, which leads to a state with an even policy; the others to a peaked one.

    Both lead back, and nothing is to be won in them.
    """
    closed = [0.97, 0.01, 0.01, 0.01]
    transition_SAS = np.zeros((3, 4, 3))
    transition_SAS[0, 0, 1] = transition_SAS[0, 1:, 2] = transition_SAS[1:, :, 0] = 1
    reward_SA = np.zeros((3, 4))
    reward_SA[0, 0] = 1
    problem = Problem(np.array([1.0, 0, 0]), reward_SA, transition_SAS, 0.9)
    return problem, np.log([[0.6, 0.38, 0.01, 0.01], [0.25] * 4, closed])


CASES: dict[str, Callable[[], tuple[Problem, np.ndarray]]] = {
    "likely and right": lambda: bandit([0.6, 0.2, 0.1, 0.1], [1, 0, 0, 0]),
    "rare and right": lambda: bandit([0.9, 0.05, 0.03, 0.02], [0, 0, 0, 1]),
    "anti-calibrated": lambda: bandit([0.4, 0.25, 0.15, 0.1, 0.06, 0.04], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "two signs": lambda: bandit([0.5, 0.35, 0.09, 0.045, 0.015], [0, 1, 0, 0, 0]),
    "even": lambda: bandit([0.25] * 4, [1, 0, 0, 0]),
    "towards open states": open_states,
}
"""Where covariance and entropy start from, by name."""


def counterexamples(updates: int = UPDATES, step_size: float = STEP_SIZE) -> pd.DataFrame:
    """Return the frame of counterexamples.parquet: exact policy gradient from each of `CASES`, a row per update.

    `covariance` is Theorem 1's, such that `predicted` = -step_size * covariance is the predicted change of the
    entropy, and `covariance_theorem_2` is Cov(log pi, A); both averaged over the states that the policy visits.
    `entropy_change` is what the update brings (nats), `same_state_change` that with the states held, which differs
    only where there are several. `probabilities` and `advantages` are JSON, a list per state.
    """
    rows = []
    for case, make in CASES.items():
        problem, logits_SA = make()
        for update in range(updates):
            policy_SA = softmax(logits_SA)
            advantage_SA, visits_S = problem.advantages(policy_SA), problem.visits(policy_SA)
            gradient_SA = visits_S[:, None] * policy_SA * advantage_SA / (1 - problem.discount)
            moved_SA = logits_SA + step_size * gradient_SA
            covariance = visits_S @ covariances(policy_SA, np.log(policy_SA), gradient_SA)
            before = problem.entropy(logits_SA)
            rows.append(
                {
                    "case": case,
                    "update": update,
                    "probabilities": json.dumps(policy_SA.round(6).tolist()),
                    "advantages": json.dumps(advantage_SA.round(6).tolist()),
                    "step_size": step_size,
                    "covariance": covariance,
                    "covariance_theorem_2": visits_S @ covariances(policy_SA, np.log(policy_SA), advantage_SA),
                    "entropy": before,
                    "predicted": -step_size * covariance,
                    "entropy_change": problem.entropy(moved_SA) - before,
                    "same_state_change": visits_S @ entropies(moved_SA) - before,
                    "objective": problem.objective(logits_SA),
                }
            )
            logits_SA = moved_SA
    return pd.DataFrame(rows)[COUNTEREXAMPLE_COLUMNS]
