"""A step on a GPU, against TRL on the same one: seconds, tokens a second, share of the matrix rate, memory.

    python benchmarks/gpu.py

A random model of Qwen2.5-0.5B's shape, 16 prompts x 4 responses, a quarter of the context is prompt; weights in
float32, computing in bfloat16. Both sample with transformers. Without a GPU there is nothing to measure.
"""

import tempfile
import time
from pathlib import Path

import measure
import torch
from measure import Goal, Row
from scaling import SAMPLES, measured, step
from trainer import NAMES, make_random

SHAPE = {"layers": 24, "width": 896, "heads": 14, "inner": 4864, "vocabulary": 151_936}
CONTEXTS = (512, 2048)


def main() -> None:
    """Measure and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    device, shape, contexts, prompts = "cuda", SHAPE, CONTEXTS, 16
    if options.quick:  # the same way on the CPU
        device, prompts, contexts = "cpu", 2, (16,)
        shape = {"layers": 1, "width": 64, "heads": 2, "inner": 128, "vocabulary": 512}
    elif not torch.cuda.is_available():
        print("no GPU on this machine: nothing to measure")
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        model = make_random(Path(folder) / "model", **shape)
        rate = measure.rate(shape["width"], 2, device=device, dtype="bfloat16")
        for context in contexts:
            more = {"device": device, "training": {"dtype": "bfloat16"}}
            for what, found in measured(step(model, context, prompts, 2, 1, **more), rate, threads=1).items():
                rows.append(
                    {
                        "trainer": NAMES[what],
                        "context": context,
                        "sequences": prompts * SAMPLES,
                        "seconds a step": found["step"],
                        "tokens a second": found["tokens"] / found["step"],
                        "model FLOPs / matrix rate": f"{found['floor'] / found['step']:.1%}",
                        "GB above weights": found["peak_gb"],
                        "TFLOP/s of matrices": rate / 1e12,
                    }
                )
                print(rows[-1], flush=True)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    slower = min(other["seconds a step"] / own["seconds a step"] for own, other in pairs)
    goals = [Goal("TRL's step on a GPU, times this project's", slower, 1, "x", True)]
    measure.write("gpu", options.results, began, {"": rows}, goals)


if __name__ == "__main__":
    main()
