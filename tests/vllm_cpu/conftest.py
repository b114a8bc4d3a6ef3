"""Data and a base policy for the tests of the stages."""

import pytest
from vllm_workplace import Workplace


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """One for all tests; each names its runs after itself."""
    return Workplace(tmp_path_factory.mktemp("workplace"))
