"""Where the time of a drain goes, by room: `python -m benchmarks.rooms [JOBS]`. Needs a system with SIGPROF.

Every millisecond of processor time a signal notes the innermost frame that is ours; what runs below it (msgspec, the
event loop's C) counts as that room's, and what runs with no frame of ours as the loop's. Sampling leaves the speed as
it is, where cProfile makes each Python call several times dearer and shifts the picture to whoever calls most.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import taskharbor
from benchmarks.fixtures import IN_FLIGHT, noop, open_harbor
from benchmarks.measure import Settings

_ROOT = str(Path(taskharbor.__file__).parent)
_LOOP = "event loop and interpreter"


def main() -> None:
    """Drain once and print the share of each room."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    samples: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        samples[_room(frame)] += 1

    with open_harbor(Settings(driver="memory", jobs=jobs, rounds=1)) as harbor:
        harbor.enqueue_many([noop.s("user@example.com", n) for n in range(jobs)])
        signal.signal(signal.SIGPROF, sample)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        try:
            harbor.run_until_idle(concurrency=IN_FLIGHT)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    for room, count in samples.most_common():
        print(f"{count / samples.total():6.1%}  {room}")


def _room(frame: FrameType | None) -> str:
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_ROOT):
            room = path.removeprefix(_ROOT).strip("/").removesuffix(".py")
            return _LOOP if room == "worker/own_loop" else room
        frame = frame.f_back
    return _LOOP


if __name__ == "__main__":
    main()
