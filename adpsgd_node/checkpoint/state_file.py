"""Name the files in which a trainer hands its part of a checkpoint to its daemon.

The daemon raises `save_state` in the plane's header to a number; the trainer writes the file of that number, whole
and synced, or the error file with the reason, and then sets `state_saved` to it.
"""

from __future__ import annotations

__all__ = ["STATE_ERROR_FILE", "STATE_FILE"]

STATE_FILE = "state-{}.pt"
STATE_ERROR_FILE = "state-{}.error"
