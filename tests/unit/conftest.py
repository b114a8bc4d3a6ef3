"""Fixtures of the unit tests."""

import pytest
from random_policies import random_policy


@pytest.fixture
def policy():
    """`random_policy` on one thread."""
    import torch

    torch.set_num_threads(1)
    return random_policy()
