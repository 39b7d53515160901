"""What all tests rely on, however they were started."""

from __future__ import annotations

import signal

# A shell without job control has what it starts in the background ignore Ctrl-C, and so all that is started by that.
# Tests send interrupts to programs of their own, and expect them to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
