"""Lets Snakemake start without pandas, which its plugin for Slurm imports for a report that is seldom asked for.

`make slurm` puts this file and quick_start.pth into its environment. Every Slurm job starts Snakemake twice, and
pandas is a third of the processor time of a start.
"""

import importlib
import sys
import types

REPORT = "snakemake_executor_plugin_slurm.efficiency_report"


def create_efficiency_report(*given, **named):
    """The plugin's own, loaded when it is asked for (`snakemake --slurm-efficiency-report`)."""
    sys.modules.pop(REPORT, None)
    return importlib.import_module(REPORT).create_efficiency_report(*given, **named)


sys.modules[REPORT] = types.ModuleType(REPORT)
sys.modules[REPORT].create_efficiency_report = create_efficiency_report
