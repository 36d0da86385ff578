"""Run the suite from the command line: `python -m chaos`, with `tests` on the path. `make chaos` does that.

What happens goes to stderr; the last line of stdout is one JSON object. Exit code 0 only when everything held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
from pathlib import Path

from adpsgd_node.config import quiet_grpc


def main() -> None:
    parser = argparse.ArgumentParser(prog="chaos", description="Hurt real nodes at random while they train.")
    parser.add_argument("--minutes", type=float, default=10.0, help="of random faults; 10")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=None, help="of the faults; default: a new one, which is told")
    parser.add_argument("--output", type=Path, default=Path("runs/chaos"), help="folder of logs; is emptied first")
    options = parser.parse_args()
    quiet_grpc()
    from chaos.plan import ChaosPlan
    from chaos.suite import run_suite

    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    try:
        plan = ChaosPlan(nodes=options.nodes, minutes=options.minutes, seed=seed, output=options.output)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as ^C does: what was started is ended
    result = asyncio.run(run_suite(plan))
    print(json.dumps(result), flush=True)
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
