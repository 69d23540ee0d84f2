"""A program that ends with its parent, however that ended, and with all that it has started.

`python -m crypto_assets.operations.leash FD PROGRAM ARGUMENTS…` is PROGRAM, a console script of
this environment, until nobody holds the other end of the pipe FD any more. It must lead a process
group of its own: the whole group is killed.
"""

import os
import signal
import sys
import threading
from importlib.metadata import entry_points


def main() -> None:
    """Become the program, on a leash."""
    leash, name = int(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_die_with, args=(leash,), name="leash", daemon=True).start()
    (script,) = entry_points(group="console_scripts", name=name)
    sys.argv = sys.argv[2:]
    script.load()()


def _die_with(leash: int) -> None:
    os.read(leash, 1)  # nothing is ever written: it returns when the last writer is gone
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
