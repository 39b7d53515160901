"""The parent's loop: it blocks until a signal comes, a process says that it works, or a deadline passes."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

from taskharbor.errors import DeploymentError
from taskharbor.supervisor.child import Child
from taskharbor.supervisor.exits import Exit
from taskharbor.supervisor.restart import final, is_wrong, told, worst
from taskharbor.supervisor.signals import Signals, has_terminal
from taskharbor.supervisor.slot import Roll, Slot

if sys.platform == "win32":
    raise ImportError("a supervisor needs POSIX signals")

logger = logging.getLogger("taskharbor.supervisor")

# Beyond its grace a stopping worker cancels handlers, writes outcomes, leaves the register, closes dependencies. Each
# of these it bounds by `halt`; what is left when all of them are used up is a process that hangs.
_HALTS_IN_A_STOP = 4
_MARGIN_SECONDS = 15.0


class Supervisor:
    """Leads processes from the first start to the last end. Made for one `run`."""

    def __init__(
        self, command: Sequence[str], processes: int, grace: timedelta, halt: timedelta, *, until_idle: bool
    ) -> None:
        """Prepare it; nothing is started before `run`."""
        self._command = command
        self._slots = [Slot(number) for number in range(1, processes + 1)]
        self._halt_patience = halt.total_seconds() * _HALTS_IN_A_STOP + _MARGIN_SECONDS
        self._drain_patience = grace.total_seconds() + self._halt_patience
        self._until_idle = until_idle
        self._roll = Roll()
        self._stopping = False
        self._has_worked = False
        """Some process has come up, so command and deployment were right once."""
        self._codes: list[Exit] = []
        self._failure: DeploymentError | None = None
        self._had_terminal = has_terminal()
        self._is_init = os.getpid() == 1

    def run(self) -> int:
        """Lead until told to stop, or until there is nothing left to lead; as `supervise` says."""
        heard = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's wish
            heard.append(signal.SIGHUP)
        with Signals(heard) as signals:
            try:
                while not all(slot.finished for slot in self._slots):
                    self._turn(signals)
            finally:
                self._abandon()
        if self._failure is not None:
            raise self._failure
        return worst(self._codes)

    def _turn(self, signals: Signals) -> None:
        ready = self._wait(signals)
        # The signals first: a process that starts while a stop is asked for would start in vain.
        for number in signals.read():
            self._on_signal(number)
        for slot in ready:
            self._on_ready(slot)
        self._reap()
        now = time.monotonic()
        for slot in self._slots:
            child = slot.child
            if child is not None and child.kill_at is not None and child.kill_at <= now:
                logger.error(
                    "process %d (pid %d) has not ended in its time and is killed", slot.number, child.pid
                )
                child.kill()
            elif slot.due is not None and slot.due <= now:
                self._start(slot)

    def _wait(self, signals: Signals) -> list[Slot]:
        """Block until there is something to do; return the slots whose processes have said that they work."""
        moments = [slot.due for slot in self._slots if slot.due is not None]
        moments += [
            slot.child.kill_at
            for slot in self._slots
            if slot.child is not None and slot.child.kill_at is not None
        ]
        timeout = max(min(moments) - time.monotonic(), 0.0) if moments else None
        with selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            for slot in self._slots:
                if slot.child is not None and slot.child.speaks:
                    selector.register(slot.child.lifeline, selectors.EVENT_READ, slot)
            events = selector.select(timeout)
        spoke = [key.data for key, _ in events if isinstance(key.data, Slot)]
        return [slot for slot in spoke if slot.child is not None and slot.child.hear()]

    # --- processes

    def _start(self, slot: Slot) -> None:
        slot.due = None
        try:
            slot.child = Child(self._command, slot.number)
        except OSError as error:
            told_where = f"process {slot.number} cannot be started as {self._command[0]!r}: {error.strerror}"
            if self._has_worked:
                self._give_up_roll(slot)
                wait = max(slot.backoff.after_crash(0.0), 1.0)
                slot.due = time.monotonic() + wait
                logger.error("%s; the next try comes in %.1f s", told_where, wait)
            else:
                self._failure = DeploymentError(f"{told_where}; check that it is installed and executable")
                self._failure.__cause__ = error
                self._stop()
            return
        logger.info("process %d is started (pid %d)", slot.number, slot.child.pid)

    def _on_ready(self, slot: Slot) -> None:
        self._has_worked = True
        if slot.child is not None and slot.child.asked:  # told to end while it started
            return
        logger.debug("process %d works", slot.number)
        self._roll.over(slot)
        self._replace_next()

    def _reap(self) -> None:
        for slot in self._slots:
            child = slot.child
            code = None if child is None else child.reap()
            if child is not None and code is not None:
                self._on_end(slot, child, code)
        if self._is_init:
            self._reap_strangers()

    def _reap_strangers(self) -> None:
        """Wait for what processes left behind when they ended: as PID 1 it is ours, and nobody else will."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self._slots:  # it may be one of ours that has ended just now
                if slot.child is not None and slot.child.pid == pid:
                    self._on_end(slot, slot.child, slot.child.ended(os.waitstatus_to_exitcode(status)))

    def _on_end(self, slot: Slot, child: Child, code: int) -> None:
        lived = child.lived()
        how = told(code, sent=child.sent, ready=child.ready)
        slot.child = None
        self._has_worked = self._has_worked or child.ready
        done = self._until_idle and code in (Exit.OK, Exit.UNFINISHED) and not child.asked
        if self._stopping or done or code == Exit.ORDERED:
            logger.info("process %d %s", slot.number, how)
            self._codes.append(final(code, asked=child.asked, killed=child.killed))
            slot.finish()
            self._roll.over(slot)
            self._replace_next()
            return
        if is_wrong(code) and not self._has_worked:
            logger.error(
                "process %d %s before any has worked; all end, as another try would end alike",
                slot.number,
                how,
            )
            self._codes.append(Exit(code))
            slot.finish()
            self._stop()
            return
        replaced = child.asked and slot is self._roll.current
        if replaced:
            wait = slot.backoff.after_recycling()
        else:
            self._give_up_roll(slot)
            recycled = code == Exit.RECYCLE
            wait = slot.backoff.after_recycling() if recycled else slot.backoff.after_crash(lived)
        slot.due = time.monotonic() + wait
        logger.log(
            logging.INFO if replaced or code in (Exit.OK, Exit.RECYCLE) else logging.ERROR,
            "process %d (pid %d) %s after %.1f s; another one starts %s",
            slot.number,
            child.pid,
            how,
            lived,
            f"in {wait:.1f} s" if wait else "now",
        )

    # --- signals

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._on_stop_signal(signal.Signals(number).name)
        elif number == signal.SIGHUP:
            self._on_hangup()
        elif number == signal.SIGUSR1:
            for slot in self._slots:
                # One that has not come up has no handler for it yet, and would die of it.
                if slot.child is not None and slot.child.ready:
                    slot.child.send(signal.SIGUSR1)

    def _on_stop_signal(self, name: str) -> None:
        if not self._stopping:
            logger.info("%s: all processes drain; another one cancels what runs", name)
            self._stop()
            return
        logger.warning("%s again: all processes halt", name)
        for slot in self._slots:
            if slot.child is not None:
                slot.child.halt(self._halt_patience)

    def _on_hangup(self) -> None:
        if self._stopping:
            return
        if self._had_terminal and not has_terminal():
            logger.info("SIGHUP: the terminal is gone; all processes drain")
            self._stop()
            return
        logger.info("SIGHUP: one process after the other is replaced")
        self._roll.begin(self._slots)
        self._replace_next()

    # --- ending and replacing

    def _stop(self) -> None:
        self._stopping = True
        for slot in self._slots:
            if slot.child is not None:
                slot.child.drain(self._drain_patience)
            else:
                slot.finish()

    def _replace_next(self) -> None:
        slot = None if self._stopping else self._roll.next()
        if slot is None:
            return
        if slot.child is not None:
            slot.child.drain(self._drain_patience)
        else:
            slot.due = time.monotonic()  # not after the rest of its wait

    def _give_up_roll(self, slot: Slot) -> None:
        if slot is self._roll.current:
            logger.error(
                "the new process %d did not come up; the others go on as they are. Send SIGHUP again when it can",
                slot.number,
            )
            self._roll.give_up()

    def _abandon(self) -> None:
        """Leave no process behind when an error of our own has ended the loop."""
        for slot in self._slots:
            if slot.child is not None:
                slot.child.drain(self._drain_patience)
        for slot in self._slots:
            if slot.child is not None:
                slot.child.wait()
                slot.child = None
