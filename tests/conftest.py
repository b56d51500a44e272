"""What all tests share: neither the shell nor the environment that they are started from changes what they see."""

import os
import signal

# `make test &` and `nohup` have these ignored, which the processes that tests start and signal would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)

for name in [*os.environ]:
    if name.startswith(("KABENCH_", "MPL")):
        del os.environ[name]
for name in (
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "TERM",
    "COLUMNS",
    "LINES",
):
    os.environ.pop(name, None)
