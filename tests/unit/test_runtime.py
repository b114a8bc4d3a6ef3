"""What the stages that compute with torch set up."""

import ctypes
import subprocess
import sys

import pytest

GROWING = """
import resource
import torch
from entropy_mechanism.stages.runtime import compute_on_cpu

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    cache = torch.ones(0)
    for _ in range(120):
        cache = torch.cat([cache, torch.ones(2**16)])
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
compute_on_cpu()
print(faults(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
"""


def test_on_a_cpu_a_growing_cache_is_made_of_memory_that_was_freed():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    done = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, check=True)
    given_back, kept, threads, deterministic = done.stdout.split()
    assert int(kept) < int(given_back) / 2, done.stdout
    assert (threads, deterministic) == ("1", "True")
