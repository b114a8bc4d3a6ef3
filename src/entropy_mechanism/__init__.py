"""Rebuilds the experiments of "The Entropy Mechanism of RL for Reasoning Language Models" (arXiv 2505.22617)."""

__version__ = "0.1.0"
