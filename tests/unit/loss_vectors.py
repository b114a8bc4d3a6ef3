"""Losses and gradients of the paper's released functions, computed by plain arithmetic.

Written from the formulas alone, one token at a time and in Python floats, as an oracle for the preset
`paper-code`: a micro-batch of responses of different lengths, its token mean, PPO clip, Clip-Cov and KL-Cov.
"""

import math
import random


def cases(count=12):
    """Seeded cases: (kind, params, lengths, old, new, advantages, loss, gradient), values as nested lists."""
    source = random.Random(20250528)
    for index in range(count):
        kind = ("ppo", "kl_cov", "clip_cov")[index % 3]
        lengths = [source.randint(2, 14) for _ in range(8)]
        old = [[-source.expovariate(0.8) - 1e-3 for _ in range(n)] for n in lengths]
        new = [[min(-1e-6, value + source.gauss(0, 0.4)) for value in row] for row in old]
        advantages = [source.choice([-1, 1]) * source.expovariate(1) for _ in lengths]
        params = {
            "ppo": {"low": 0.2, "high": source.choice([0.2, 0.28])},
            "kl_cov": {"percent": source.choice([0.2, 2.0, 10.0]), "coefficient": source.choice([0.1, 1.0])},
            "clip_cov": {"low": 1.0, "high": 1.0, "ratio": 1.0, "band": (1.0, 5.0)},
        }[kind]
        yield kind, params, lengths, old, new, advantages, *_loss(kind, params, old, new, advantages)


def _loss(kind, params, old, new, advantages):
    tokens = [
        (n, o, a)
        for new_row, old_row, a in zip(new, old, advantages, strict=True)
        for n, o in zip(new_row, old_row, strict=True)
    ]
    count = len(tokens)
    mean_logprob = sum(n for n, _, _ in tokens) / count
    mean_advantage = sum(a for _, _, a in tokens) / count
    covariance = [(n - mean_logprob) * (a - mean_advantage) for n, _, a in tokens]
    chosen = set()
    if kind == "kl_cov":
        ranked = sorted(range(count), key=lambda i: -covariance[i])
        chosen = set(ranked[: max(1, int(count * params["percent"] / 100))])
    loss, gradient = 0.0, []
    for i, (n, o, a) in enumerate(tokens):
        ratio = math.exp(n - o)
        value, slope = -a * ratio, -a * ratio
        if kind != "kl_cov":
            cut = (a > 0 and ratio > 1 + params["high"]) or (a < 0 and ratio < 1 - params["low"])
            if cut:
                value, slope = -a * (1 + params["high"] if a > 0 else 1 - params["low"]), 0.0
            if kind == "clip_cov" and not cut and params["band"][0] < covariance[i] < params["band"][1]:
                value, slope = 0.0, 0.0  # a ratio of 1 draws the whole band
        elif i in chosen:
            value += params["coefficient"] * abs(n - o)
            slope += params["coefficient"] * ((n > o) - (n < o))
        loss += value / count
        gradient.append(slope / count)
    return loss, gradient
