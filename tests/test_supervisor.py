"""A supervisor leads processes: it starts them, starts them again, and leaves none behind.

The supervisor runs in a process of its own, and leads small programs that tell what happens to them over a named pipe.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from taskharbor import DeploymentError, OptionError, UsageError
from taskharbor.supervisor import Exit, supervise
from taskharbor.supervisor.restart import LONGEST_SECONDS, STEADY_SECONDS, Backoff, final, told, worst
from taskharbor.worker.watchdog import STALLED_EXIT_CODE
from tests.support.led import ROLLS, SERVES, Led, children, lives, state
from tests.support.work import ENOUGH, SECOND, eventually


@pytest.fixture
def led(tmp_path: Path) -> Generator[Led]:
    """Return a supervisor that is yet to be started."""
    led = Led(tmp_path)
    yield led
    led.close()


# --- decisions


def test_the_first_crash_costs_no_wait_and_the_next_ones_ever_more() -> None:
    """Half a second, doubled up to thirty; the lower half of it is certain."""
    backoff = Backoff(uniform=lambda low, _high: low)

    waits = [backoff.after_crash(lived=1.0) for _ in range(9)]

    assert [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0] == waits
    assert LONGEST_SECONDS / 2 == max(backoff.after_crash(1.0) for _ in range(2000))


def test_jitter_stays_within_the_upper_half() -> None:
    """Real randomness never exceeds the limit either."""
    backoff = Backoff()

    waits = [backoff.after_crash(lived=1.0) for _ in range(200)][20:]

    assert all(LONGEST_SECONDS / 2 <= wait <= LONGEST_SECONDS for wait in waits)
    assert len(set(waits)) > 1


def test_who_has_lived_for_a_minute_or_recycled_itself_has_no_crashes_behind_it() -> None:
    """Then the next crash costs nothing again."""
    backoff = Backoff()
    for _ in range(5):
        backoff.after_crash(1.0)

    assert 0.0 == backoff.after_crash(STEADY_SECONDS)
    assert 0.0 < backoff.after_crash(1.0)
    assert 0.0 == backoff.after_recycling()
    assert 0.0 == backoff.after_crash(1.0)


@pytest.mark.parametrize(
    ("code", "asked", "killed", "expected"),
    [
        (0, True, False, Exit.OK),
        (Exit.RECYCLE, True, False, Exit.OK),
        (Exit.ORDERED, False, False, Exit.OK),
        (-signal.SIGTERM, True, False, Exit.OK),
        (-signal.SIGTERM, False, False, Exit.FAILED),
        (-signal.SIGKILL, True, True, Exit.UNFINISHED),
        (-signal.SIGSEGV, True, False, Exit.FAILED),
        (Exit.UNFINISHED, True, False, Exit.UNFINISHED),
        (77, False, False, Exit.FAILED),
    ],
)
def test_what_the_end_of_a_process_means_for_the_whole(
    code: int, asked: bool, killed: bool, expected: Exit
) -> None:
    assert expected is final(code, asked=asked, killed=killed)


def test_the_worst_code_is_told() -> None:
    assert Exit.OK is worst([])
    assert Exit.UNFINISHED is worst([Exit.OK, Exit.UNFINISHED, Exit.OK])
    assert Exit.DEPLOYMENT is worst([Exit.UNAVAILABLE, Exit.DEPLOYMENT, Exit.FAILED])


def test_an_end_is_told_by_name() -> None:
    assert "was killed by SIGKILL (out of memory?)" == told(-9)
    assert "was killed by SIGSEGV" == told(-11)
    assert "was killed by signal 40" == told(-40)
    assert "ended with code 75 (stalled)" == told(75)
    assert "ended with code 99" == told(99)


def test_an_end_by_the_supervisors_own_signal_is_told_as_its_own() -> None:
    """Nobody has to look for who else has sent it."""
    sent = {signal.SIGTERM, signal.SIGKILL}

    assert "was ended by our SIGTERM while it started" == told(-15, sent=sent, ready=False)
    assert "was ended by our SIGKILL" == told(-9, sent=sent, ready=True)
    assert "was killed by SIGINT" == told(-2, sent=sent, ready=False)
    assert "ended with code 0 (ok)" == told(0, sent=sent, ready=True)


def test_the_code_of_a_stalled_worker_is_known_to_the_supervisor() -> None:
    """The watchdog, which knows nothing of supervisors, ends its process with it."""
    assert Exit(STALLED_EXIT_CODE) is Exit.STALLED


# --- refusals


def test_what_cannot_be_led_is_refused() -> None:
    """The messages say what was expected."""
    with pytest.raises(OptionError, match="processes=0: expected a whole number of at least 1"):
        supervise(["true"], processes=0, grace=SECOND, until_idle=False)
    with pytest.raises(OptionError, match="expected a list, the program and its arguments"):
        supervise("true", processes=1, grace=SECOND, until_idle=False)
    with pytest.raises(OptionError, match="expected a list"):
        supervise([], processes=1, grace=SECOND, until_idle=False)


def test_a_command_that_does_not_exist_is_a_deployment_error(tmp_path: Path) -> None:
    """It names the command, and the signals are given back."""
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(
        DeploymentError, match=r"process 1 cannot be started as '.*/nothing'.*installed"
    ) as refused:
        supervise([str(tmp_path / "nothing")], processes=3, grace=SECOND, until_idle=False)

    assert isinstance(refused.value.__cause__, FileNotFoundError)
    assert before == signal.getsignal(signal.SIGTERM)


def test_outside_the_main_thread_it_says_why_not() -> None:
    """Python gives signals to the main thread alone."""
    refused = list[UsageError]()

    def ask() -> None:
        with pytest.raises(UsageError, match="main thread") as caught:
            supervise(["true"], processes=1, grace=SECOND, until_idle=False)
        refused.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert 1 == len(refused)


# --- starting and starting again


def test_processes_are_numbered_and_lead_sessions_of_their_own(led: Led) -> None:
    """SIGTERM drains all, and the supervisor ends with 0 once they have."""
    led.start(SERVES, processes=3)
    came = led.expect("ready", "ready", "ready")

    assert [1, 2, 3] == [event.number for event in came]
    assert all(os.getsid(event.pid) == event.pid for event in came)
    led.send(signal.SIGTERM)
    led.expect("SIGTERM", "SIGTERM", "SIGTERM")
    assert 0 == led.end()


def test_a_killed_process_is_started_again_at_once(led: Led) -> None:
    """With its number; the log says how the first one ended."""
    led.start(SERVES, processes=2)
    first, _ = led.expect("ready", "ready")

    os.kill(first.pid, signal.SIGKILL)

    again = led.expect("ready")[0]
    assert (1, True) == (again.number, again.pid != first.pid)
    assert "was killed by SIGKILL (out of memory?)" in led.log()
    assert "another one starts now" in led.log()
    led.send(signal.SIGINT)
    led.expect("SIGTERM", "SIGTERM")
    assert 0 == led.end()


def test_what_a_killed_process_leaves_running_is_killed_too(led: Led) -> None:
    """Such as the process of a handler: its job will run again, and must not run twice at once."""
    led.start(
        """
if once("first"):
    say("left", subprocess.Popen(["sleep", "1000"]).pid)
    signal.sigwait(LISTENED)
"""
        + SERVES
    )
    left = led.expect("left")[0]

    os.kill(left.pid, signal.SIGKILL)

    led.expect("ready")
    eventually(lambda: not lives(int(left.more[0])))
    led.send(signal.SIGTERM)
    led.expect("SIGTERM")
    assert 0 == led.end()


def test_what_a_process_that_ends_well_leaves_running_goes_on(led: Led) -> None:
    """A handler may have started it on purpose."""
    led.start('say("left", subprocess.Popen(["sleep", "1000"]).pid)', until_idle=True)
    left = int(led.expect("left")[0].more[0])

    assert 0 == led.end()

    assert lives(left)
    os.kill(left, signal.SIGKILL)


def test_recycling_costs_no_wait_however_often(led: Led) -> None:
    """Ten in a row, each started now."""
    led.start(f"ready()\nsys.exit({Exit.RECYCLE:d})")

    for _ in range(10):
        led.expect("ready")

    led.send(signal.SIGTERM)
    assert 0 == led.end()
    assert "in 0" not in led.log()
    assert led.log().count("ended with code 79 (recycle)") >= 9


def test_who_was_told_to_end_from_afar_is_not_started_again(led: Led) -> None:
    """The others go on, and when all have been, it ends well."""
    led.start(
        f"ready()\nif number == '1': sys.exit({Exit.ORDERED:d})\nwait()\nsys.exit({Exit.ORDERED:d})",
        processes=2,
    )
    second = next(event for event in led.expect("ready", "ready") if event.number == 2)

    os.kill(second.pid, signal.SIGUSR1)

    led.expect("SIGUSR1")
    assert 0 == led.end()
    assert "another one starts" not in led.log()


@pytest.mark.parametrize("code", [Exit.USAGE, Exit.DEPLOYMENT])
def test_a_deployment_that_never_worked_ends_all_with_its_code(led: Led, code: Exit) -> None:
    """The others are drained; nothing would come of trying again."""
    led.start(
        f"""
if number == "2":
    say("wrong")
    sys.exit({code:d})
signal.sigwait(LISTENED)
""",
        processes=3,
    )

    assert code == led.end()

    assert "as another try would end alike" in led.log()
    assert "another one starts" not in led.log()


def test_a_deployment_that_worked_once_is_tried_again(led: Led) -> None:
    """Somebody may be in the middle of replacing it."""
    led.start(
        f"""
if not once("worked") and once("broken"):
    sys.exit({Exit.DEPLOYMENT:d})
"""
        + SERVES
    )
    first = led.expect("ready")[0]

    os.kill(first.pid, signal.SIGKILL)

    led.expect("ready")
    assert "ended with code 3 (deployment)" in led.log()
    led.send(signal.SIGTERM)
    led.expect("SIGTERM")
    assert 0 == led.end()


def test_a_store_that_is_away_is_waited_for(led: Led) -> None:
    """Even at the first start; the second wait is longer than none."""
    led.start(f"if once('a') or once('b'):\n    sys.exit({Exit.UNAVAILABLE:d})\n" + SERVES)

    led.expect("ready")

    assert 2 == led.log().count("ended with code 4 (unavailable)")
    assert "another one starts now" in led.log()
    assert "another one starts in 0." in led.log()
    led.send(signal.SIGTERM)
    led.expect("SIGTERM")
    assert 0 == led.end()


def test_a_stop_does_not_wait_for_a_wait(led: Led) -> None:
    """A process that is due later is not started any more."""
    led.start(
        "say('try')\nsys.exit(1)",
        setup="import taskharbor.supervisor.restart as r; r._FIRST_SECONDS = 1000.0",
    )
    led.expect("try", "try")
    eventually(lambda: "another one starts in" in led.log())

    led.send(signal.SIGTERM)

    assert 0 == led.end()


def test_it_sleeps_without_a_deadline_when_nothing_is_due(led: Led) -> None:
    """An idle supervisor takes no processor time at all."""
    led.start(
        SERVES,
        setup="""
import selectors
class Watched(selectors.DefaultSelector):
    def select(self, timeout=None):
        loop.logger.info("sleeps for %s", timeout)
        return super().select(timeout)
selectors.DefaultSelector = Watched
""",
    )
    led.expect("ready")

    eventually(lambda: led.log().rstrip().endswith("sleeps for None"))

    led.send(signal.SIGTERM)
    led.expect("SIGTERM")
    assert 0 == led.end()


def test_the_command_is_told_by_exec_and_loads_nothing_of_the_parent(led: Led) -> None:
    """Standard input is nobody's, and no descriptor but the lifeline comes with it."""
    led.start(
        """
say("fds", ",".join(sorted(os.listdir("/proc/self/fd"))), lifeline)
say("stdin", os.readlink("/proc/self/fd/0"))
""",
        until_idle=True,
    )
    fds, stdin = led.event(), led.event()
    held = {int(fd) for fd in fds.more[0].split(",")}

    # 0 to 2, the lifeline, the program's own named pipe, and the listing itself.
    assert held - {0, 1, 2, int(fds.more[1])} <= {3, 4, 5}
    assert ["/dev/null"] == stdin.more
    assert 0 == led.end()


# --- until idle


def test_until_idle_it_ends_when_all_have(led: Led) -> None:
    """A crash is started again, an end in peace is not."""
    led.start(
        "ready()\nif number == '2' and once('crash'): os.kill(os.getpid(), 9)", processes=3, until_idle=True
    )

    came = led.expect("ready", "ready", "ready", "ready")

    assert [1, 2, 2, 3] == [event.number for event in came]
    assert 0 == led.end()


def test_until_idle_the_worst_code_is_told(led: Led) -> None:
    """A handler that would not end is worth a code."""
    led.start(f"ready()\nsys.exit({Exit.UNFINISHED:d} if number == '2' else 0)", processes=3, until_idle=True)

    led.expect("ready", "ready", "ready")

    assert Exit.UNFINISHED == led.end()


# --- ending


def test_a_second_signal_halts(led: Led) -> None:
    """The first is passed on as one SIGTERM, the second as SIGINT."""
    led.start("ready()\nwhile wait() != 'SIGINT': pass", processes=2)
    led.expect("ready", "ready")

    led.send(signal.SIGTERM)
    led.expect("SIGTERM", "SIGTERM")
    led.send(signal.SIGTERM)

    led.expect("SIGINT", "SIGINT")
    assert 0 == led.end()


def test_who_does_not_end_is_killed_when_its_time_is_over(led: Led) -> None:
    """That is logged, and told by the exit code."""
    led.start("ready()\nwhile True: wait()", processes=2, grace=0, setup="loop._MARGIN_SECONDS = 0.2")
    led.expect("ready", "ready")

    led.send(signal.SIGTERM)

    led.expect("SIGTERM", "SIGTERM")
    assert Exit.UNFINISHED == led.end()
    assert 2 == led.log().count("has not ended in its time and is killed")
    assert 2 == led.log().count("was ended by our SIGKILL")


def test_a_stop_in_the_middle_of_a_start_is_not_lost(led: Led) -> None:
    """Signals before, while and after a process is started: they are heard when it has been."""
    led.start(
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, LISTENED)\nreadable = time.sleep(1000)",
        processes=4,
        setup="""
import subprocess
class Interrupted(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        super().__init__(*args, **kwargs)
subprocess.Popen = Interrupted
""",
    )

    assert 0 == led.end()

    started = [
        int(line.rpartition("pid ")[2].rstrip(")")) for line in led.log().splitlines() if "is started" in line
    ]
    assert 4 == len(started)
    assert 4 == led.log().count("was ended by our SIGTERM while it started")
    assert [pid for pid in started if state(pid)] == []


def test_an_error_of_its_own_leaves_no_process_behind(led: Led) -> None:
    """They are drained first, and the error is told."""
    led.start(
        SERVES,
        processes=2,
        setup="""
def fails(self, slot):
    if all(slot.child is not None and slot.child.ready for slot in self._slots):
        raise RuntimeError("a bug")
loop.Supervisor._on_ready = fails
""",
    )
    led.expect("ready", "ready", "SIGTERM", "SIGTERM")

    assert 1 == led.end()
    assert "RuntimeError: a bug" in led.log()


def test_processes_notice_the_death_of_their_parent(led: Led) -> None:
    """The lifeline is cut by SIGKILL too, since nobody else holds the parent's end."""
    led.start("ready()\nwait_for_end()\nsay('cut')", processes=3)
    led.expect("ready", "ready", "ready")

    led.send(signal.SIGKILL)

    led.expect("cut", "cut", "cut")
    assert -signal.SIGKILL == led.process.wait(ENOUGH.total_seconds())
    eventually(lambda: not any(lives(pid) for pid in led.pids), "the end of all processes")


# --- rolling


def test_a_hangup_replaces_one_process_after_the_other(led: Led) -> None:
    """The next one's turn comes when the new one works."""
    led.start(ROLLS, processes=3)
    old = {event.pid for event in led.expect("ready", "ready", "ready")}

    led.send(signal.SIGHUP)

    came = [led.event() for _ in range(6)]
    assert ["SIGTERM", "ready"] * 3 == [event.name for event in came]
    assert [1, 1, 2, 2, 3, 3] == [event.number for event in came]
    assert old == {event.pid for event in came if event.name == "SIGTERM"}
    led.send(signal.SIGTERM)
    led.expect("SIGTERM", "SIGTERM", "SIGTERM")
    assert 0 == led.end()


def test_a_replacement_that_does_not_come_up_ends_the_rolling(led: Led, tmp_path: Path) -> None:
    """The others go on as they are, and the empty place is tried again."""
    led.start(
        f"if os.path.exists(os.path.join(folder, 'broken')): sys.exit({Exit.DEPLOYMENT:d})\n" + ROLLS,
        processes=2,
    )
    led.expect("ready", "ready")
    broken = tmp_path / "broken"
    broken.touch()

    led.send(signal.SIGHUP)

    assert 1 == led.expect("SIGTERM")[0].number
    eventually(lambda: "did not come up" in led.log())
    broken.unlink()
    assert 1 == led.expect("ready")[0].number
    led.send(signal.SIGHUP)
    assert [1, 1, 2, 2] == [led.event().number for _ in range(4)]
    led.send(signal.SIGTERM)
    led.expect("SIGTERM", "SIGTERM")
    assert 0 == led.end()


def test_a_stop_ends_the_rolling(led: Led) -> None:
    """What is being replaced is not replaced any more, and each process is told once."""
    led.start("ready()\nwait()\nwait()", processes=2)
    led.expect("ready", "ready")
    led.send(signal.SIGHUP)
    assert 1 == led.expect("SIGTERM")[0].number

    led.send(signal.SIGTERM)
    assert 2 == led.expect("SIGTERM")[0].number
    led.send(signal.SIGTERM)

    led.expect("SIGINT", "SIGINT")
    assert 0 == led.end()


def test_a_request_for_stacks_is_passed_to_those_that_work(led: Led) -> None:
    """One that has not come up would die of it."""
    led.start("if number == '1':\n    say('silent')\n    wait()\n    sys.exit()\n" + SERVES, processes=2)
    led.expect("ready", "silent")
    eventually(lambda: "process 2 works" in led.log())

    led.send(signal.SIGUSR1)

    assert 2 == led.expect("SIGUSR1")[0].number
    led.send(signal.SIGTERM)
    led.expect("SIGTERM", "SIGTERM")
    assert 0 == led.end()


# --- terminals and containers


def test_ctrl_c_in_a_terminal_is_one_signal_to_each_process(led: Led) -> None:
    """The terminal signals its foreground group, in which the processes are not."""
    ours, theirs = pty.openpty()
    led.start("ready()\nwait()\nwait()", processes=2, stdin=theirs)
    os.close(theirs)
    led.expect("ready", "ready")

    os.write(ours, b"\x03")
    led.expect("SIGTERM", "SIGTERM")
    os.write(ours, b"\x03")

    led.expect("SIGINT", "SIGINT")
    assert 0 == led.end()
    os.close(ours)


def test_a_closed_terminal_drains(led: Led) -> None:
    """Its SIGHUP asks for no rolling restart."""
    ours, theirs = pty.openpty()
    led.start(SERVES, processes=2, stdin=theirs)
    os.close(theirs)
    led.expect("ready", "ready")

    os.close(ours)

    led.expect("SIGTERM", "SIGTERM")
    assert 0 == led.end()
    assert "the terminal is gone" in led.log()


def _can_be_init() -> bool:
    return (
        subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode
        == 0
    )


def test_as_the_first_process_of_a_container_it_waits_for_strangers(led: Led) -> None:
    """Whatever loses its parent there becomes its child, and must not stay as a zombie."""
    if sys.platform != "linux" or not _can_be_init():
        pytest.skip("needs Linux and the right to make a PID namespace")
    led.start(
        "subprocess.run(['sh', '-c', 'sleep 0 & exit'])\n" + SERVES,
        processes=2,
        before=("unshare", "--pid", "--fork", "--kill-child=SIGKILL"),
    )
    led.expect("ready", "ready")
    led.pids.clear()  # as counted in there
    leader = children(led.process.pid)[0]

    eventually(lambda: len(children(leader)) == 2)

    assert all(lives(child) for child in children(leader))
    os.kill(leader, signal.SIGTERM)
    led.expect("SIGTERM", "SIGTERM")
    led.pids.clear()
    assert 0 == led.end()
