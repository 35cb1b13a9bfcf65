"""An end that is asked for (SIGTERM: of systemd, Kubernetes, `kill`) is the end that a key brings: in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does meanwhile, and KeyboardInterrupt leaves: leases are given back, and what Ray
    started is ended.

    Ray sets a handler of its own when it is imported, which leaves by `sys.exit` with the signal's number: that is
    taken for the same. In another thread than the main one signals are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, former)


def _leave(_: int, frame: FrameType | None) -> None:
    heard = signal.getsignal(signal.SIGINT)
    if callable(heard):
        heard(signal.SIGINT, frame)
    raise KeyboardInterrupt  # where SIGINT is ignored, as behind nohup
