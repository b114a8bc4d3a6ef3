"""Lemma 1, Proposition 1 and Theorems 1 and 2 of arXiv 2505.22617 on softmax policies that are tables of logits.

Everything is exact in float64: objectives and their gradients, state distributions, entropies. What is left
between the paper's formulas and what an update does is the higher orders in its size, and what they leave out.
Shape suffixes: S states, A actions. Arrays are logits, policies or advantages, [S, A].
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

STEP_SIZES = tuple(np.geomspace(1e-4, 1e-1, 10))
INSTANCES = 8
FLOW_STEPS = 8
"""Runge-Kutta steps in which the gradient flow of Proposition 1 is followed."""
UPDATES, STEP_SIZE = 300, 0.2
"""Policy-gradient updates by which the counterexamples are followed."""
TABULAR_COLUMNS = ["check", "states", "form", "instance", "step_size", "exact", "predicted", "error"]
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
    """Return the frame of tabular.parquet: the paper's formulas beside exact changes, on random bandits.

    One row per check, instance and step size. `exact` and `predicted` are entropy changes in nats, averaged over
    contexts, for Proposition 1 the largest change of a logit; `error` is their absolute difference, for
    Proposition 1 the largest over the logits.

    lemma-1: a step in a random direction. proposition-1: the logits after following the gradient for as long as
    the step size, against eta pi A (after one step along it they are equal). theorem-1, theorem-2: a step along
    the gradient, or the natural gradient. The step size is that of a context: with n equally likely ones, a step
    of size eta is one of n eta along the gradient.
    """
    return _over_problems("bandit", _bandit_checks, instances, step_sizes, seed)


def tabular_left_out(
    instances: int = INSTANCES, step_sizes: Sequence[float] = STEP_SIZES, seed: int = 0
) -> pd.DataFrame:
    """Return the frame of tabular_left_out.parquet: the same in random decision processes; columns as `tabular`.

    `states` says whether the exact change averages over the states that the old policy visits (`held`, as Lemma 1
    does) or over those that each policy visits (`followed`), `form` which formula predicts it: `printed`, or
    `complete`, with what is left out. Lemma 1 complete has in addition Cov(Q_H, z' - z), with Q_H the discounted
    sum of the entropies that follow: to first order the change of the state distribution. Theorem 1 complete has
    the factor d(s) / (1 - gamma) of every state, Theorem 2 complete 1 / (1 - gamma).
    """
    return _over_problems("mdp", _decision_checks, instances, step_sizes, seed)


Check = tuple[tuple[str, str, str], float | np.ndarray, Callable[[float], float | np.ndarray]]
"""Names of check, states and form; the predicted change per unit of step size; the exact change of a step size."""
Checks = Callable[[Problem, np.ndarray, np.ndarray], Iterator[Check]]
"""The checks on a problem, from logits and a direction, [S, A]."""


def _over_problems(
    kind: str, checks: Checks, instances: int, step_sizes: Sequence[float], seed: int
) -> pd.DataFrame:
    rows = []
    for instance in range(instances):
        problem, logits_SA = random_problem(kind, seed + instance)
        direction_SA = np.random.default_rng([seed + instance, 99]).normal(size=logits_SA.shape)
        for names, predicted, exact in checks(problem, logits_SA, direction_SA):
            for size in step_sizes:
                change, guess = np.asarray(exact(size)), size * np.asarray(predicted)
                pair = {"exact": change, "predicted": guess}
                values = {name: float(np.abs(x).max() if x.ndim else x) for name, x in pair.items()}
                values |= {"error": float(np.abs(change - guess).max())}
                row: dict[str, Any] = dict(zip(("check", "states", "form"), names, strict=True))
                rows.append(row | {"instance": instance, "step_size": size} | values)
    return pd.DataFrame(rows)[TABULAR_COLUMNS]


def _bandit_checks(problem: Problem, logits_SA: np.ndarray, direction_SA: np.ndarray) -> Iterator[Check]:
    policy_SA = softmax(logits_SA)
    advantage_SA, contexts = problem.advantages(policy_SA), len(logits_SA)

    def ascent(z_SA: np.ndarray) -> np.ndarray:
        return contexts * problem.gradient(z_SA)

    def predicted(change_SA: np.ndarray) -> float:
        return -covariances(policy_SA, np.log(policy_SA), change_SA).mean()

    def after(step_SA: np.ndarray) -> Callable[[float], float]:
        return lambda size: (entropies(logits_SA + size * step_SA) - entropies(logits_SA)).mean()

    def flow(size: float) -> np.ndarray:
        return _flow(ascent, logits_SA, size) - logits_SA

    yield ("lemma-1", "held", "printed"), predicted(direction_SA), after(direction_SA)
    yield ("theorem-1", "held", "printed"), predicted(policy_SA * advantage_SA), after(ascent(logits_SA))
    yield ("theorem-2", "held", "printed"), predicted(advantage_SA), after(problem.natural_gradient(logits_SA))
    yield ("proposition-1", "held", "printed"), policy_SA * advantage_SA, flow


def _decision_checks(problem: Problem, logits_SA: np.ndarray, direction_SA: np.ndarray) -> Iterator[Check]:
    policy_SA = softmax(logits_SA)
    visits_S, advantage_SA = problem.visits(policy_SA), problem.advantages(policy_SA)
    before, times_S = problem.entropy(logits_SA), visits_S / (1 - problem.discount)

    def predicted(change_SA: np.ndarray) -> float:
        return -visits_S @ covariances(policy_SA, np.log(policy_SA), change_SA)

    def held(step_SA: np.ndarray) -> Callable[[float], float]:
        return lambda size: visits_S @ entropies(logits_SA + size * step_SA) - before

    def followed(size: float) -> float:
        return problem.entropy(logits_SA + size * direction_SA) - before

    lemma = predicted(direction_SA)
    of_states = visits_S @ covariances(policy_SA, entropy_after(problem, policy_SA), direction_SA)
    along, natural = held(problem.gradient(logits_SA)), held(problem.natural_gradient(logits_SA))
    first_SA, second_SA = policy_SA * advantage_SA, advantage_SA
    yield ("lemma-1", "held", "printed"), lemma, held(direction_SA)
    yield ("lemma-1", "followed", "printed"), lemma, followed
    yield ("lemma-1", "followed", "complete"), lemma + of_states, followed
    yield ("theorem-1", "held", "printed"), predicted(first_SA), along
    yield ("theorem-1", "held", "complete"), predicted(times_S[:, None] * first_SA), along
    yield ("theorem-2", "held", "printed"), predicted(second_SA), natural
    yield ("theorem-2", "held", "complete"), predicted(second_SA / (1 - problem.discount)), natural


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
    """Slope of log error on log step size for every check, states and form; one row each.

    Columns: these three, then `slope`, the median over instances, and `lowest` and `highest`.
    """
    keys = ["check", "states", "form"]
    found = [
        (*names, np.polyfit(np.log(rows["step_size"]), np.log(rows["error"]), 1)[0])
        for names, rows in frame.groupby([*keys, "instance"], sort=False)
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


def counterexamples() -> pd.DataFrame:
    """Return the frame of counterexamples.parquet: the first row of each case of `counterexample_paths`."""
    return counterexample_paths(updates=1)


def counterexample_paths(updates: int = UPDATES, step_size: float = STEP_SIZE) -> pd.DataFrame:
    """Return the frame of counterexample_paths.parquet: exact policy gradient from each of `CASES`, row by update.

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
