"""Run the command line as `python -m adpsgd_cli`."""

from __future__ import annotations

from adpsgd_cli.main import main

if __name__ == "__main__":
    main()
