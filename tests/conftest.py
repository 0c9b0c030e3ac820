"""What all tests share: threads, compiled modules, and a Ctrl-C that is heard."""

import os
import signal
import sys

from hypothesis import settings

# Threads that fight for two cores slow the tests tenfold.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Where no compiled modules may be kept, every process that a test starts compiles all of them anew,
# which takes it longer than the test, and so does every run of the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's affair.
settings.register_profile("unmask", deadline=None)
settings.load_profile("unmask")
