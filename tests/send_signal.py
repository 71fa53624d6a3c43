"""Program that runs a `repro` command and sends a signal to itself at a given moment.

    python send_signal.py NUMBER MOMENT WORDS...

MOMENT is a number, the n-th audit event of Python (an import, an opened file, …) since the signal handlers were set,
or an event and a part of its argument, such as `import:pandas` or `open:run.json`. With MOMENT 0 nothing is sent, and
the number of moments is printed to standard error. The moments do not depend on the speed of the machine.
"""

import os
import runpy
import signal
import sys

EVENTS = {"import", "open", "exec", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "ctypes.dlopen", "socket.bind"}


def main() -> None:
    """Run the command."""
    number, moment = int(sys.argv[1]), sys.argv[2]
    sys.argv = ["repro", *sys.argv[3:]]
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in EVENTS and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            name, _, part = moment.partition(":")
            count += not part or (event == name and part in str(arguments[0]))
            if count == (1 if part else int(moment)):
                count += 1
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    try:
        runpy.run_module("repro", run_name="__main__", alter_sys=True)
    finally:
        if moment == "0":
            print(count, file=sys.stderr)


if __name__ == "__main__":
    main()
