"""The training loop and its science: advantages, covariance, selection, objectives."""
