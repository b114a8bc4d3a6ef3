"""Runs shaped like training, with known truth: entropy falls and levels off, accuracy lies on a known curve."""

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.law import ACCURACY, ENTROPY, RunPoints

A, B = 0.21, 0.596


def noise(points, persistence, spread, random):
    """AR(1) noise in its stationary state with standard deviation `spread`."""
    series = np.empty(points)
    value = random.normal()
    for i in range(points):
        series[i] = value
        value = persistence * value + np.sqrt(1 - persistence**2) * random.normal()
    return spread * series


def training(points, persistence, random, curve=None, last=0.02, spread=0.008, speed=5.0):
    """Entropy from 0.55 toward `last` with 3 % noise, and accuracy `curve(H)`, by default R = -A exp(H) + B."""
    time = np.linspace(0, 1, points)
    entropy = (last + (0.55 - last) * np.exp(-speed * time)) * np.exp(noise(points, 0.3, 0.03, random))
    truth = B - A * np.exp(entropy) if curve is None else curve(entropy)
    return entropy, truth + noise(points, persistence, spread, random)


def run_points(entropy, accuracy, method="grpo", seed=1):
    """One run of a model validated every fourth step."""
    name = f"m--t--{method}--s{seed}"
    identity = {"run": name, "model": "m", "train_set": "t", "method": method, "seed": seed}
    return RunPoints(identity, 4 * np.arange(len(entropy)), np.asarray(entropy), np.asarray(accuracy), 0)


def curves_of(*runs):
    """curves.parquet of `run_points`; eight gradient steps a rollout step, every fourth step validated."""
    frames = []
    for run in runs:
        frame = pd.DataFrame({"step": run.steps, ENTROPY: run.entropy, ACCURACY: run.accuracy})
        frames.append(frame.assign(gradient_steps=8 * frame["step"], **run.identity))
    return pd.concat(frames, ignore_index=True)
