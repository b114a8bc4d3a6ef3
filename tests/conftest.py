"""Shared by all tests: one thread, no network, and the same cases of hypothesis on every run."""

import importlib.util
import os
import shutil
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell without job control lets what it starts in the background ignore Ctrl-C, and so all that this starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import chromium
import pytest
from hypothesis import settings

# The same cases on every run, so that a failure belongs to a change; `--hypothesis-profile=explore` searches anew.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", max_examples=2000)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def _one_thread():
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium with one page."""
    page = chromium.Browser(chromium.find(), tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


def pytest_collection_modifyitems(items):
    """Tests marked `browser`, `gpu`, `vllm` or `slurm` are skipped, by name, where there is none."""
    if chromium.find() is None:
        reason = f"no Chromium ({', '.join(chromium.NAMES)}); on Debian: apt-get install chromium"
        for item in items:
            if "browser" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))
    if not shutil.which("sbatch") or importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        for item in items:
            if "slurm" in item.keywords:
                item.add_marker(
                    pytest.mark.skip(reason="no Slurm in this environment; `make test-slurm` says what")
                )
    if importlib.util.find_spec("vllm") is None:
        for item in items:
            if "vllm" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no vLLM in this environment; `make test-vllm` makes one"))
    marked = [item for item in items if "gpu" in item.keywords]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
