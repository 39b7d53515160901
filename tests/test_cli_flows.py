"""`taskharbor flows`, and what `taskharbor jobs` tells of steps, on every store."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from taskharbor import (
    Flow,
    FlowState,
    JobState,
    Retry,
    Snooze,
    SyncTask,
    chain,
    chord,
    each,
    group,
    task,
)
from taskharbor.cli import listing
from taskharbor.driver import JobReserve, QueueTake
from taskharbor.drivers.registry import open_driver
from tests.fixtures.cli import Shop
from tests.support.chaos_stores import POSTGRES, SQLITE, chaos_store

HOUR = timedelta(hours=1)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LENGTH = re.compile(r"\b(\d+ms|\d+\.\ds|\d+m\d+s)\b( so far)?")


class Studio(Shop):
    """A shop that makes contact sheets. Images whose number is in `torn` cannot be read."""

    scan: SyncTask[[int], list[int]]
    resize: SyncTask[[int], int]
    sheet: SyncTask[[list[int]], int]
    brighten: SyncTask[[int], int]
    torn: set[int]

    def declare(self) -> None:
        self.torn = set()

        @task(name="image.scan", registry=self.registry)
        def scan(count: int) -> list[int]:
            return list(range(count))

        @task(name="image.resize", retry=Retry(max_attempts=1), registry=self.registry)
        def resize(image: int) -> int:
            if image in self.torn:
                raise ValueError(f"image {image} is torn")
            return image

        @task(name="image.sheet", registry=self.registry)
        def sheet(images: list[int]) -> int:
            return sum(images)

        @task(name="image.brighten", registry=self.registry)
        def brighten(image: int) -> int:
            return image + 1

        self.scan, self.resize, self.sheet, self.brighten = scan, resize, sheet, brighten

    def store(self, flow: Flow[object]) -> str:
        """Store a flow and return its id."""
        with self.harbor:
            return flow.enqueue().id

    def ran(self, flow: Flow[object]) -> str:
        """Store a flow, run what can be run, and return its id."""
        flow_id = self.store(flow)
        self.work()
        return flow_id

    def work(self) -> None:
        self.harbor.run_until_idle()

    def failed(self, count: int = 8) -> str:
        """Return the id of a chord two of whose members are dead."""
        self.torn = {2, 5}
        return self.ran(chord([self.resize.s(number) for number in range(count)], self.sheet))

    def drawn(self, flow_id: str, *arguments: str) -> list[str]:
        """Return the drawing of a flow, without lengths of time and what differs from run to run."""
        out = self.run("flows", "show", flow_id, *arguments).out
        graph = LENGTH.sub("", UUID.sub("ID", out.partition("\n\n")[2]))
        return [re.sub(r"(?<=\w)  +", "  ", line).rstrip() for line in graph.splitlines()]


def studios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> Generator[Studio]:
    studio = Studio(monkeypatch, capsys, open_driver(url))
    studio.declare()
    yield studio
    studio.harbor.close()


@pytest.fixture(params=["memory", SQLITE, POSTGRES])
def studio(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Generator[Studio]:
    if request.param == "memory":
        yield from studios(monkeypatch, capsys, "memory://")
        return
    with chaos_store(request.param, tmp_path) as store:
        yield from studios(monkeypatch, capsys, store.url)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generator[Studio]:
    """A studio in memory: for what does not depend on the store."""
    yield from studios(monkeypatch, capsys, "memory://")


def ids(studio: Studio, *arguments: str) -> list[str]:
    return [flow["id"] for flow in studio.run("flows", "list", "--json", *arguments).lines()]


# --- lists


def test_flows_are_listed_the_newest_first_or_in_the_order_of_their_enqueue(studio: Studio) -> None:
    first = studio.failed()
    named = chain(studio.scan.s(1), studio.sheet).configure(name="thumbs", meta={"album": "7"})
    second = studio.store(named)

    told = studio.run("flows", "list")
    oldest = studio.run("flows", "list", "--oldest-first")

    header, *rows = told.out.splitlines()
    assert ["id", "state", "name", "meta", "enqueued", "ended", "why"] == header.split()
    assert [second, "running", "thumbs", "album=7"] == rows[0].split()[:4]
    assert [first, "failed"] == rows[1].split()[:2]
    assert "is a dead letter" in rows[1]
    assert [first, second] == [row.split()[0] for row in oldest.out.splitlines()[1:]]


def test_filters_choose_flows_and_a_page_says_how_to_go_on(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    done = studio.ran(studio.brighten.s(1).then(studio.brighten).configure(name="a"))
    failed = studio.failed()
    running = [studio.store(studio.brighten.s(1).then(studio.brighten).configure(name=name)) for name in "ab"]

    assert [running[1], running[0], failed, done] == ids(studio)
    assert [failed, done] == ids(studio, "--state", "failed,succeeded", "--state", "cancelled")
    assert [running[0], done] == ids(studio, "--name", "a")
    assert [*running[::-1], done] == ids(studio, "--name", "a", "--name", "b")
    assert [failed, done] == ids(studio, "--after", running[0])
    assert running[::-1] == ids(studio, "-n", "2")
    assert f"There may be more: --after {failed}\n" == studio.run("flows", "list", "-n", "3").err


def test_no_flows_and_none_that_match_are_told_apart(alone: Studio) -> None:
    assert (0, "", "No flows.\n") == tuple_of(alone, "flows", "list")
    assert (0, "", "No such flows.\n") == tuple_of(alone, "flows", "list", "--state", "failed")
    assert (0, "", "") == tuple_of(alone, "flows", "list", "--json")


def tuple_of(studio: Studio, *arguments: str) -> tuple[int, str, str]:
    ended = studio.run(*arguments)
    return ended.code, ended.out, ended.err


def test_a_state_that_no_flow_has_is_refused(alone: Studio) -> None:
    ended = alone.run("flows", "list", "--state", "faild")

    assert 2 == ended.code
    assert (
        "--state 'faild': no flow has this state (did you mean 'failed'?); there are running, failed, "
        "succeeded, cancelled" in ended.err
    )


# --- one flow


def test_the_head_tells_what_is_known_of_the_whole(studio: Studio) -> None:
    studio.torn = {2, 5}
    flow = chord([studio.resize.s(number) for number in range(8)], studio.sheet)
    flow_id = studio.ran(flow.configure(name="thumbs", meta={"album": "7", "by": "me"}))

    facts = [
        line.split(maxsplit=1)
        for line in studio.run("flows", "show", flow_id).out.partition("\n\n")[0].splitlines()
    ]

    assert [
        ["flow", flow_id],
        ["name", "thumbs"],
        ["meta", "album = 7"],
        ["meta", "by = me"],
        ["steps", "1 waiting, 6 succeeded, 2 dead"],
    ] == [fact for fact in facts if fact[0] in ("flow", "name", "meta", "steps")]
    told = dict(facts)
    assert told["state"].startswith("failed (step image.resize (")
    assert told["took"].endswith(" so far")
    assert "finished" not in told


def test_many_like_steps_are_drawn_as_one_and_the_dead_among_them_told(studio: Studio) -> None:
    studio.torn = {2, 5}
    flow_id = studio.ran(chain(studio.scan.s(8), each(studio.resize), studio.sheet))

    assert [
        "●  image.scan  succeeded  1 attempt  ID",
        "●  taskharbor.each  succeeded  1 attempt  ID",
        "●  image.resize x 8  6 succeeded, 2 dead  8 attempts",
        "│    ID  dead  ValueError: image 2 is torn",
        "│    ID  dead  ValueError: image 5 is torn",
        "○  image.sheet  waiting for 2  ID",
    ] == studio.drawn(flow_id)


def test_what_is_to_come_of_an_each_is_drawn_after_it(studio: Studio) -> None:
    flow_id = studio.store(chain(studio.scan.s(8), each(chain(studio.resize, studio.brighten)), studio.sheet))

    waiting = studio.drawn(flow_id)
    studio.work()

    assert [
        "○  image.scan  ready  ID",
        "○  taskharbor.each  waiting for 1  ID",
        "○  image.sheet  waiting for 1  ID",
    ] == waiting
    assert [
        "●  image.scan  succeeded  1 attempt  ID",
        "●  taskharbor.each  succeeded  1 attempt  ID",
        "●  image.resize x 8  8 succeeded  8 attempts",
        "●  image.brighten x 8  8 succeeded  8 attempts",
        "●  image.sheet  succeeded  1 attempt  ID",
    ] == studio.drawn(flow_id)


def test_an_each_within_an_each_is_drawn_after_what_made_it(studio: Studio) -> None:
    @task(name="image.pages", registry=studio.registry)
    def pages(image: int) -> list[int]:
        return [image] * 3

    inner = chain(pages, each(studio.brighten), studio.sheet)
    flow_id = studio.ran(chain(studio.scan.s(6), each(inner), studio.sheet))

    assert [
        "●  image.scan  succeeded  1 attempt  ID",
        "●  taskharbor.each  succeeded  1 attempt  ID",
        "●  image.pages x 6  6 succeeded  6 attempts",
        "●  taskharbor.each x 6  6 succeeded  6 attempts",
        "●  image.brighten x 18  18 succeeded  18 attempts",
        "●  image.sheet x 6  6 succeeded  6 attempts",
        "●  image.sheet  succeeded  1 attempt  ID",
    ] == studio.drawn(flow_id)


def test_an_each_that_made_nothing_is_drawn_before_what_follows(studio: Studio) -> None:
    flow_id = studio.ran(chain(studio.scan.s(0), each(studio.brighten), studio.sheet))

    assert ["image.scan", "taskharbor.each", "image.sheet"] == [
        line.split("  ")[1] for line in studio.drawn(flow_id)
    ]
    assert ["s1 --> s2", "s2 --> s3"] == [
        line.strip()
        for line in studio.run("flows", "show", flow_id, "--mermaid").out.splitlines()
        if "-->" in line
    ]


def test_branches_are_drawn_side_by_side(studio: Studio) -> None:
    flow_id = studio.store(
        chord(
            [
                studio.scan.s(1).then(studio.sheet).then(studio.brighten),
                studio.brighten.s(1).then(studio.resize),
            ],
            studio.sheet,
        )
    )

    assert [
        "○    image.scan  ready  ID",
        "○    image.sheet  waiting for 1  ID",
        "○    image.brighten  waiting for 1  ID",
        "│ ○  image.brighten  ready  ID",
        "│ ○  image.resize  waiting for 1  ID",
        "├─╯",
        "○    image.sheet  waiting for 2  ID",
    ] == studio.drawn(flow_id)


def test_a_long_chain_is_drawn_as_one(alone: Studio) -> None:
    chain_ = alone.brighten.s(0).then(alone.brighten)
    for _ in range(98):
        chain_ = chain_.then(alone.brighten)

    flow_id = alone.store(chain_.then(alone.resize))

    assert [
        "○  image.brighten x 100 in a row  99 waiting, 1 ready",
        "○  image.resize  waiting for 1  ID",
    ] == alone.drawn(flow_id)


def test_a_step_that_is_to_be_tried_again_tells_why(alone: Studio) -> None:
    @task(name="image.print", retry=Retry(max_attempts=3, base=HOUR, cap=HOUR), registry=alone.registry)
    def print_(image: int) -> int:
        raise OSError("no paper")

    flow_id = alone.ran(print_.s(1).then(alone.brighten))

    assert [
        "●  image.print  retrying  1 attempt  ID",
        "│    OSError: no paper",
        "○  image.brighten  waiting for 1  ID",
    ] == alone.drawn(flow_id)


def test_of_very_many_dead_steps_some_are_told_and_how_to_list_the_others(alone: Studio) -> None:
    alone.torn = set(range(50))
    flow_id = alone.ran(chord([alone.resize.s(number) for number in range(50)], alone.sheet))

    told = alone.run("flows", "show", flow_id).out.splitlines()

    assert 20 == sum("  dead  ValueError: image " in line for line in told)
    (hint,) = (line for line in told if "more dead" in line)
    assert hint.endswith(f"30 more dead: taskharbor jobs list --flow {flow_id} --state dead --limit 50")
    listed = alone.run(*hint.partition("taskharbor ")[2].split(), "--json").lines()
    assert ["dead"] * 50 == [job["state"] for job in listed]


def test_every_step_is_listed_if_that_is_asked_for(studio: Studio) -> None:
    flow_id = studio.failed()

    table = studio.run("flows", "show", flow_id, "--steps").out.partition("\n\n")[2].splitlines()

    assert ["id", "state", "task", "attempts", "took", "why", "last", "error"] == table[0].split()
    assert 10 == len(table)
    assert [flow_id, "waiting", "image.sheet", "0/5"] == table[-1].split()
    assert [True, True] == [line.endswith(" is torn") for line in table if " dead " in line]


def test_for_programs_every_step_is_told(studio: Studio) -> None:
    flow_id = studio.failed()

    (told,) = studio.run("flows", "show", flow_id, "--json").lines()

    assert (flow_id, "failed", {"succeeded": 6, "dead": 2, "waiting": 1}) == (
        told["id"],
        told["state"],
        told["steps"],
    )
    last = told["graph"][-1]
    assert (flow_id, "waiting", 2) == (last["id"], last["state"], last["waits"])
    assert sorted(step["id"] for step in told["graph"][:-1]) == sorted(last["after"])
    assert {"image 2 is torn", "image 5 is torn"} == {
        step["error"]["message"] for step in told["graph"] if step["state"] == "dead"
    }
    assert told["enqueued_at"].endswith("Z")


def test_documents_get_the_graph_as_mermaid_and_dot(studio: Studio) -> None:
    flow_id = studio.failed()

    mermaid = studio.run("flows", "show", flow_id, "--mermaid").out
    dot = studio.run("flows", "show", flow_id, "--dot").out
    every = studio.run("flows", "show", flow_id, "--mermaid", "--steps").out

    assert [
        "flowchart LR",
        '    s1["image.resize x 8<br/>6 succeeded, 2 dead"]:::dead',
        '    s2["image.sheet<br/>waiting"]:::waiting',
        "    s1 --> s2",
    ] == mermaid.splitlines()[:4]
    assert ["    classDef waiting", "    classDef dead"] == [
        " fill".join(line.split(" fill")[:1]) for line in mermaid.splitlines()[4:]
    ]
    assert dot.startswith("digraph flow {\n    rankdir=LR;\n")
    assert '    s1 [label="image.resize x 8\\n6 succeeded, 2 dead", fillcolor="#f7d0d0"];\n' in dot
    assert dot.endswith("    s1 -> s2;\n}\n")
    assert 8 == every.count(" --> s9\n")


def test_one_form_is_chosen(alone: Studio) -> None:
    ended = alone.run("flows", "show", "x", "--json", "--dot")

    assert 2 == ended.code
    assert "give one of --json, --mermaid and --dot" in ended.err


def test_a_flow_that_is_not_there_is_told_and_the_others_shown(studio: Studio) -> None:
    flow_id = studio.failed()
    step = studio.harbor.flows.steps(flow_id, [JobState.DEAD])[0].id
    with studio.harbor:
        job = studio.send.enqueue("a").id

    ended = studio.run("flows", "show", "nowhere", step, flow_id, job, "--json")

    assert (1, [flow_id]) == (ended.code, [flow["id"] for flow in ended.lines()])
    missing, a_step, a_job = ended.err.splitlines()
    assert missing.startswith("no flow has the id 'nowhere'")
    assert f"{step!r} is a step of the flow {flow_id}" == a_step
    assert f"{job!r} is a job of no flow, see `taskharbor jobs show`" == a_job


def test_no_terminal_obeys_what_comes_out_of_a_flow(alone: Studio) -> None:
    @task(name="image.red", retry=Retry(max_attempts=1), registry=alone.registry)
    def red(image: int) -> int:
        raise ValueError("\x1b[31mred")

    flow_id = alone.ran(red.s(1).then(alone.brighten).configure(meta={"a": "\x1b]0;owned\x07"}))
    forms: list[list[str]] = [[], ["--steps"], ["--mermaid"], ["--dot"], ["--json"]]

    shown = "".join(alone.run("flows", "show", flow_id, *form).out for form in forms)
    shown += alone.run("flows", "list").out

    assert not {"\x1b", "\x07"} & set(shown)
    assert "\\x1b[31mred" in shown


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def seen(alone: Studio, monkeypatch: pytest.MonkeyPatch, flow_id: str, columns: int) -> str:
    screen = Screen()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", screen)
        patched.setenv("COLUMNS", str(columns))
        patched.setenv("TERM", "xterm")
        alone.run("flows", "show", flow_id)
    return screen.getvalue()


def test_states_are_coloured_on_a_terminal(alone: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = seen(alone, monkeypatch, alone.failed(), 200)

    assert "\x1b[32m6 succeeded\x1b[0m" in shown
    assert "\x1b[31m2 dead\x1b[0m" in shown
    assert "\x1b[31mfailed\x1b[0m" in shown


def test_a_narrow_terminal_gets_the_drawing_without_ids(
    alone: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_id = alone.store(alone.scan.s(1).then(alone.sheet))

    wide, narrow = (seen(alone, monkeypatch, flow_id, columns) for columns in (120, 60))

    assert (2, 1) == (wide.count(flow_id), narrow.count(flow_id))


def test_where_boxes_cannot_be_printed_plain_signs_are(
    alone: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_id = alone.store(chord([alone.resize.s(1), alone.brighten.s(2)], alone.sheet))
    file = io.TextIOWrapper(io.BytesIO(), "latin-1")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", file)
        alone.run("flows", "show", flow_id)
    file.seek(0)

    graph = file.read().partition("\n\n")[2].splitlines()

    assert ["o  ", "| o", "+-/", "o  "] == [line[:3].ljust(3) for line in graph]


# --- acting


def test_a_failed_flow_goes_on_when_its_dead_steps_are_retried(studio: Studio) -> None:
    flow_id = studio.failed()
    studio.torn = set()

    ended = studio.run("flows", "retry", flow_id, "--reason", "mended")
    again = studio.run("flows", "retry", flow_id)
    resumed = studio.harbor.flows.get(flow_id).state
    studio.work()

    assert (0, f"{flow_id}  2 dead steps requeued; the flow goes on\n") == (ended.code, ended.out)
    assert (1, f"{flow_id}  nothing to retry: it is running, and no dead step is in its way\n") == (
        again.code,
        again.err,
    )
    assert FlowState.RUNNING is resumed
    assert FlowState.SUCCEEDED is studio.harbor.flows.get(flow_id).state
    with studio.harbor:
        assert b"28" == studio.harbor.jobs.get(flow_id).result
    (step,) = (s for s in studio.harbor.flows.steps(flow_id) if s.operations and b"2" in s.payload)
    assert ("requeue", "mended", True) == (
        step.operations[0].verb,
        step.operations[0].reason,
        step.operations[0].by.startswith("cli"),
    )


def test_what_cannot_be_retried_is_told_and_the_rest_done(studio: Studio) -> None:
    done = studio.ran(studio.brighten.s(1).then(studio.brighten))
    gone = studio.store(studio.brighten.s(1).then(studio.brighten))
    studio.run("flows", "cancel", gone, "--yes")
    failed = studio.failed()

    ended = studio.run("flows", "retry", "nowhere", done, gone, failed)
    told = studio.run("flows", "retry", "nowhere", done, gone, failed, "--json").lines()

    assert (1, f"{failed}  2 dead steps requeued; the flow goes on\n") == (ended.code, ended.out)
    missing, has_ended, was_cancelled = ended.err.splitlines()
    assert missing.startswith("no flow has the id 'nowhere'")
    assert f"{done}  not retried: it has succeeded" == has_ended
    assert f"{gone}  not retried: it has been cancelled, and nothing of it will run any more" == was_cancelled
    assert [("missing", 0), ("not_dead", 0), ("not_dead", 0), ("not_dead", 0)] == [
        (answer["status"], answer["steps"]) for answer in told
    ]


def test_failures_that_were_taken_as_values_are_not_retried(studio: Studio) -> None:
    @task(name="image.wait", registry=studio.registry)
    def wait(image: int) -> int:
        raise Snooze(HOUR)

    studio.torn = {1}
    members = [studio.resize.s(1), wait.s(2)]
    flow_id = studio.ran(group(*members, allow_failures=True))

    ended = studio.run("flows", "retry", flow_id)

    assert 1 == ended.code
    assert "nothing to retry: it is running" in ended.err
    assert 1 == studio.harbor.flows.get(flow_id).steps[JobState.DEAD]


def test_a_step_whose_key_is_taken_stays_dead_and_is_counted(studio: Studio) -> None:
    studio.torn = {1, 2}
    keyed = studio.resize.options(key="k", key_ttl=timedelta(0))
    flow_id = studio.ran(chord([keyed.s(1), studio.resize.s(2)], studio.sheet))
    with studio.harbor:
        keyed.options(run_in=HOUR).enqueue(3)

    ended = studio.run("flows", "retry", flow_id)

    assert (1, FlowState.FAILED) == (ended.code, studio.harbor.flows.get(flow_id).state)
    assert (
        f"{flow_id}  1 dead step requeued, 1 not: another job has taken the idempotency key, or somebody was "
        "faster\n" == ended.err
    )


def test_flows_are_cancelled_for_good(studio: Studio) -> None:
    flow_id = studio.failed()

    first = studio.run("flows", "cancel", flow_id, "nowhere", "--yes", "--reason", "not wanted")
    second = studio.run("flows", "cancel", flow_id, "--yes")

    assert (1, f"{flow_id}  cancelled\n", "nowhere  there is no such flow\n") == (
        first.code,
        first.out,
        first.err,
    )
    assert (1, f"{flow_id}  not cancelled: it had ended already\n") == (second.code, second.err)
    flow = studio.harbor.flows.get(flow_id)
    assert (FlowState.CANCELLED, "not wanted") == (flow.state, flow.reason)
    assert "cancelled (not wanted)" in studio.run("flows", "show", flow_id).out


def test_a_flow_with_steps_that_run_is_cancelled_and_their_workers_told(studio: Studio) -> None:
    with studio.harbor:
        flow_id = studio.brighten.s(1).then(studio.brighten).enqueue().id
        reserve = JobReserve(
            queues=[QueueTake("default", 1)],
            limit=1,
            lease=HOUR,
            token=1,
            worker="w",
            tasks=frozenset({"image.brighten"}),
            build="b",
            guarded_limit=1,
            solo=False,
        )
        studio.harbor.ask(lambda store: store.job_reserve(reserve))

    ended = studio.run("flows", "cancel", flow_id, "--yes")

    assert (0, f"{flow_id}  cancelled; the workers of steps that run are told to stop them\n") == (
        ended.code,
        ended.out,
    )
    assert ["● image.brighten running", "● image.brighten cancelled"] == [
        " ".join(line.split()[:3]) for line in studio.drawn(flow_id)
    ]


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["a"], "Cancel 1 flow for good?"),
        (["a", "b"], "Cancel 2 flows for good?"),
        (["-"], "Cancel all flows that standard input names for good?"),
    ],
)
def test_no_flow_is_cancelled_where_nobody_can_be_asked(
    alone: Studio, arguments: list[str], asked: str
) -> None:
    flow_id = alone.failed()

    ended = alone.run("flows", "cancel", *arguments, stdin=flow_id)

    assert 2 == ended.code
    assert f"{asked} Nobody is there to answer (no terminal); give --yes" in ended.err
    assert FlowState.FAILED is alone.harbor.flows.get(flow_id).state


def test_flows_to_cancel_come_from_a_listing(studio: Studio) -> None:
    flows = [studio.store(studio.brighten.s(1).then(studio.brighten)) for _ in range(3)]

    listing_ = studio.run("flows", "list", "--json").out
    ended = studio.run("flows", "cancel", "-", "--yes", "--json", stdin=listing_)

    assert [{"id": flow_id, "status": "cancelled"} for flow_id in flows[::-1]] == ended.lines()


# --- steps among the jobs


def test_the_steps_of_a_flow_are_listed_by_state(studio: Studio) -> None:
    flow_id = studio.failed()
    with studio.harbor:
        studio.send.enqueue("a")

    steps = studio.run("jobs", "list", "--flow", flow_id, "--json").lines()
    waiting = studio.run("jobs", "list", "--state", "waiting").out.splitlines()[1:]

    assert 9 == len(steps)
    assert {flow_id} == {step["flow"] for step in steps}
    assert [f"{flow_id}  waiting  image.sheet  default  0/5  waits for 2 results"] == [
        re.sub(r"  +", "  ", row) for row in waiting
    ]


def test_a_waiting_step_tells_its_flow_and_what_it_waits_for(studio: Studio) -> None:
    studio.torn = {2}
    members = [studio.resize.s(2), studio.brighten.options(run_in=HOUR).s(1)]
    flow_id = studio.ran(chord(members, studio.sheet).configure(name="thumbs"))
    by_task = {step.task: step.id for step in studio.harbor.flows.steps(flow_id)}

    told = studio.run("jobs", "show", flow_id).out.splitlines()

    assert "state       waiting" in told
    assert f"flow        {flow_id} (thumbs, failed)" in told
    assert [
        f"waits for   {by_task['image.resize']}  image.resize  dead (not to be retried)",
        f"waits for   {by_task['image.brighten']}  image.brighten  scheduled",
    ] == [line for line in told if line.startswith("waits for")]


def test_a_step_tells_where_its_result_goes(studio: Studio) -> None:
    flow_id = studio.failed()
    dead = studio.harbor.flows.steps(flow_id, [JobState.DEAD])[0].id

    shown = studio.run("jobs", "show", dead).out.splitlines()
    (told,) = studio.run("jobs", "show", dead, "--json").lines()

    assert f"flow        {flow_id} (failed)" in shown
    assert f"result to   {flow_id}" in shown
    assert (flow_id, [flow_id]) == (told["flow"], [edge["job_id"] for edge in told["edges"]])


def test_of_many_that_a_step_waits_for_some_are_named_and_the_others_counted(alone: Studio) -> None:
    flow_id = alone.store(chord([alone.resize.s(number) for number in range(30)], alone.sheet))

    told = [
        line for line in alone.run("jobs", "show", flow_id).out.splitlines() if line.startswith("waits for")
    ]

    assert 11 == len(told)
    assert "waits for   20 more results" == told[-1]


def test_a_plain_job_tells_of_no_flow(alone: Studio) -> None:
    with alone.harbor:
        job = alone.send.enqueue("a").id

    assert not {"flow", "waits", "result"} & {
        line.split()[0] for line in alone.run("jobs", "show", job).out.splitlines()
    }


def test_a_list_that_a_flow_came_to_is_shown_as_a_list(studio: Studio) -> None:
    studio.torn = {2}
    members = [studio.resize.s(number) for number in range(3)]
    plain = studio.ran(group(studio.brighten.s(1), studio.brighten.s(2)))
    tolerant = studio.ran(group(*members, allow_failures=True))

    (as_list,) = studio.run("jobs", "show", plain, "--json").lines()
    (with_failures,) = studio.run("jobs", "show", tolerant, "--json").lines()

    assert [2, 3] == as_list["result"]
    assert [{"type": "success", "value": 0}, {"type": "success", "value": 1}] == with_failures["result"][:2]
    assert ("failure", "ValueError") == tuple(
        with_failures["result"][2][name] for name in ("type", "error_type")
    )


def test_a_dead_step_of_a_cancelled_flow_is_not_requeued_and_it_is_said_why(studio: Studio) -> None:
    flow_id = studio.failed()
    dead = studio.harbor.flows.steps(flow_id, [JobState.DEAD])[0].id
    studio.run("flows", "cancel", flow_id, "--yes")

    ended = studio.run("jobs", "retry", dead)

    assert 1 == ended.code
    assert (
        "not requeued: it is neither dead nor cancelled; or it is a step of a flow that has ended"
        in ended.err
    )


def test_queues_count_what_waits_in_them(studio: Studio) -> None:
    studio.store(chain(studio.scan.s(1), studio.sheet, studio.brighten))

    told = studio.run("info").out

    assert re.search(r"queue +ready +scheduled +parked +waiting +running\n *default +1 +0 +0 +2 +0", told)
