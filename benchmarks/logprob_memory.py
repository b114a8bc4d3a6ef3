"""Peak memory and time of log-probabilities and entropies: the chunked head beside full logits and autograd.

    python benchmarks/logprob_memory.py [--tokens N --vocabulary V --width D --chunk C --naive-tokens N]

Each measurement is a process of its own on one thread of the CPU, in float32, forward and backward. Printed is the
peak of its resident memory above what it held with weights, hidden states and targets in place; gradients count.
Full logits need about 5 × tokens × vocabulary × 4 bytes; where that would not fit into a third of the free memory,
they are computed for fewer tokens, and the table says for how many.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

VARIANTS = {
    "chunked": {"naive": False, "entropy_gradient": False, "temperature": 1.0},
    "chunked, T = 0.6": {"naive": False, "entropy_gradient": False, "temperature": 0.6},
    "chunked, entropy gradient": {"naive": False, "entropy_gradient": True, "temperature": 1.0},
    "full logits": {"naive": True, "entropy_gradient": False, "temperature": 1.0},
    "full logits, entropy gradient": {"naive": True, "entropy_gradient": True, "temperature": 1.0},
}


def main() -> None:
    """Measure every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--naive-tokens", type=int, help="tokens of the full logits (default: what fits)")
    parser.add_argument("--only", choices=VARIANTS, help="one variant, its figures as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args)))
        return
    fits = max(1, _available_bytes() // 3 // (5 * 4 * args.vocabulary))
    naive_tokens = args.naive_tokens or min(args.tokens, fits)
    weights = args.vocabulary * args.width * 4
    print(f"tokens {args.tokens}, vocabulary {args.vocabulary}, width {args.width}, chunk {args.chunk}, float32")
    print(f"weights {weights / 1e9:.2f} GB, full logits {args.tokens * args.vocabulary * 4 / 1e9:.2f} GB")
    print(
        f"{_processor()}, one thread, {platform.system()}, Python {platform.python_version()}, {_torch_version()}"
    )
    print(f"\n{'variant':32}{'tokens':>8}{'GB above weights':>18}{'seconds':>9}{'tokens/s':>10}")
    for name, variant in VARIANTS.items():
        tokens = naive_tokens if variant["naive"] else args.tokens
        size = ["--vocabulary", args.vocabulary, "--width", args.width, "--chunk", args.chunk, "--tokens", tokens]
        child = subprocess.run(
            [sys.executable, __file__, "--only", name, *map(str, size)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if child.returncode:
            print(f"{name:32}{tokens:8} failed: {(child.stderr.strip().splitlines() or [child.returncode])[-1]}")
            continue
        found = json.loads(child.stdout)
        speed = tokens / found["seconds"]
        print(f"{name:32}{tokens:8}{found['bytes'] / 1e9:18.2f}{found['seconds']:9.1f}{speed:10.0f}", flush=True)
    if naive_tokens < args.tokens:
        print(f"\nFull logits were computed for {naive_tokens} of {args.tokens} tokens: memory grows with tokens.")


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Bytes above the weights and seconds of one variant, in this process."""
    import torch

    from entropy_mechanism.rl.head import head_statistics

    torch.set_num_threads(1)
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.empty(args.vocabulary, args.width).normal_(std=args.width**-0.5))
    hidden = torch.randn(args.tokens, args.width, requires_grad=True)
    target = torch.randint(0, args.vocabulary, (args.tokens,))
    variant = VARIANTS[args.only]
    before, start = _resident_bytes(), time.perf_counter()
    if variant["naive"]:
        logprob, entropy = naive(hidden, weight, target, variant["entropy_gradient"])
    else:
        logprob, entropy = head_statistics(
            hidden, weight, target, variant["temperature"], args.chunk, variant["entropy_gradient"]
        )
    loss = logprob.mean()
    if variant["entropy_gradient"]:
        loss = loss + entropy.mean()
    loss.backward()
    seconds = time.perf_counter() - start
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, "seconds": seconds}


def naive(hidden_ND, weight_VD, target_N, entropy_gradient):
    """Log-probabilities and entropies as they are commonly written."""
    import torch

    logprobs_NV = (hidden_ND @ weight_VD.T).log_softmax(-1)
    with torch.set_grad_enabled(entropy_gradient):
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
    return logprobs_NV.gather(-1, target_N[:, None]).squeeze(-1), entropy_N


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _available_bytes() -> int:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _processor() -> str:
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return lines[0].split(": ")[1] if lines else platform.processor()


def _torch_version() -> str:
    from importlib.metadata import version

    return f"torch {version('torch')}"


if __name__ == "__main__":
    main()
