"""Do the files on disk agree with what was recorded?"""

from pathlib import Path

from entropy_mechanism import tracking


def audit(results: Path) -> int:
    """Print every disagreement; exit status 1 when there is one.

    Raises FileNotFoundError for a results folder without records.
    """
    tracking.require_records(results)
    findings = tracking.audit(results)
    for finding in findings:
        print(finding)
    print(f"audit: {len(findings)} finding{'s' * (len(findings) != 1)}")
    return 1 if findings else 0
