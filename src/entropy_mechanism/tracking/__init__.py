"""Provenance: stages write local records, one process sends them to MLflow, audit compares disk with records.

Importing this package imports neither MLflow nor torch; only sending does.
"""

from entropy_mechanism.tracking.audit import Finding, audit
from entropy_mechanism.tracking.follow import finish, follow, track_finish, track_follow, track_sync
from entropy_mechanism.tracking.records import (
    INVOCATION_VARIABLE,
    File,
    Record,
    StageRecord,
    describe,
    latest_records,
    now,
    read_record,
    require_records,
    stage,
)
from entropy_mechanism.tracking.sync import EXPERIMENT, SyncResult, default_tracking_uri, run_ids, sync

__all__ = [
    "EXPERIMENT",
    "INVOCATION_VARIABLE",
    "File",
    "Finding",
    "Record",
    "StageRecord",
    "SyncResult",
    "audit",
    "default_tracking_uri",
    "describe",
    "finish",
    "follow",
    "latest_records",
    "now",
    "read_record",
    "require_records",
    "run_ids",
    "stage",
    "sync",
    "track_finish",
    "track_follow",
    "track_sync",
]
