"""Names and passwords inside addresses: refused where an address is set, removed from all that is written."""

import re

WEB_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""Environment variables in which MLflow looks for what a web server asks for."""
_USER = re.compile(r"://[^/\s\"']*@")
_PASSWORD_OPTION = re.compile(r"[?&](password|passwd)=", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """`text` with `user:password@` removed from every address in it."""
    return _USER.sub("://***@", text)


def check_address(address: str) -> str:
    """`address` as it is, when there is no password in it; of a web server no user name either.

    Raises ValueError that shows neither, and says where they go instead: an address stands on command lines,
    which every user of a machine can read.
    """
    scheme, separator, rest = address.partition("://")
    before, at, after = rest.rpartition("@")
    if not separator or scheme.lower().startswith(("sqlite", "file")):
        return address
    web = scheme.lower() in ("http", "https")
    if (at and (web or ":" in before)) or _PASSWORD_OPTION.search(rest):
        cure = (
            f"the environment variables {' and '.join(WEB_VARIABLES)}"
            if web
            else "a file or variable of the database's own client, such as ~/.pgpass or PGPASSWORD"
        )
        found = f"{scheme}://{'***@' * bool(at)}{after.split('?')[0]}"
        raise ValueError(
            f"found {found}, an address with credentials in it, which everyone on the machine could read in the "
            f"list of processes; allowed: an address without them. Put them into {cure} (docs/tracking.md)"
        )
    return address
