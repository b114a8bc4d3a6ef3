"""Lets Snakemake load pandas when it is used, not when it starts; other programs are left alone.

`make slurm` puts this file and quick_start.pth into its environment. Every Slurm job starts Snakemake twice, and
the plugin for Slurm imports pandas for a report that is not asked for: a third of the processor time of a start.
"""

import importlib.util
import sys

command = " ".join(sys.orig_argv[:5])
if "-m snakemake" in command or sys.orig_argv[1:2] and sys.orig_argv[1].endswith("/snakemake"):
    found = importlib.util.find_spec("pandas")
    if found and found.loader:
        found.loader = importlib.util.LazyLoader(found.loader)
        sys.modules["pandas"] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules["pandas"])
