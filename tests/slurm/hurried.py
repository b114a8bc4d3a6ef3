"""Snakemake that looks after its jobs every second; by itself the plugin pauses ten seconds longer each time."""

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def sleep(self):
    """A pause between two looks."""
    await asyncio.sleep(1)


RemoteExecutor.sleep = sleep
main()
