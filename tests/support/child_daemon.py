"""A daemon's stand-in, run as a program with the command line that join() gives a child daemon.

What it does is named by --behave in the options; its arguments go to the file named by --record.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

from support.fake_daemon import FakeDaemon


def main(arguments: list[str]) -> int:
    options = dict(argument[2:].split("=", 1) for argument in arguments if "=" in argument)
    Path(options["record"]).write_text(json.dumps({"arguments": arguments, "pid": os.getpid()}))
    if options["behave"] == "exit":
        return 4
    if options["behave"] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fd = int(arguments[arguments.index("--trainer-fd") + 1])
    FakeDaemon().serve(socket.socket(fileno=fd))
    while options["behave"] == "stubborn":
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
