"""The command line: parses, calls, prints."""

# Commands are listed in the order in which they are imported.
from . import deid, inspect, verify, audit, reveal, data, benchmark  # noqa: F401  # isort: skip
from .app import app

__all__ = ["app"]
