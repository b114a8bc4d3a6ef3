"""Columns of curves.parquet that the law is about, and the method that others are compared with."""

ENTROPY = "entropy/sequence_mean/after_filter"
"""The law's H, Eq. 5 of arXiv 2505.22617: nats per token, mean over a response's tokens first, then responses."""
ENTROPY_BEFORE_FILTER = "entropy/sequence_mean/before_filter"
"""H of all prompts that were drawn. The group filter keeps those the policy neither always nor never solves, so
which prompts enter the filtered mean depends on the policy; before the filter only a random draw does, and a
difference between two steps is the policy's change plus noise."""
ACCURACY = "validation/accuracy"
"""The law's R, a fraction."""
BASELINE = "grpo"
"""Method that the others are compared with: the paper's curves and their dependence on size are GRPO's."""
