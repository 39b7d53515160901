"""Listening as every type checker must refuse it: one a line, each marked `# E`. Nothing else here is wrong. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `accepted_events.py` is its counterpart.
"""

from __future__ import annotations

from tests.typing.tasks import resize

from taskharbor import Context, Harbor, JobHandle, JobState
from taskharbor.event import JobDead, JobRetrying


def words_of_the_wrong_kind(ctx: Context) -> None:
    ctx.progress()  # E
    ctx.progress("half")  # E
    ctx.progress(1, 2, 3)  # E
    ctx.log(5)  # E
    ctx.log("rows", 5)  # E


def listening_to_what_is_no_event(harbor: Harbor) -> None:
    harbor.events(kinds=int)  # E
    harbor.events(kinds=(JobDead, JobState))  # E
    harbor.events(kinds="dead")  # E
    harbor.events(JobDead)  # E
    harbor.events(when_full="block")  # E
    harbor.events(size="1000")  # E
    harbor.events(tasks=[resize])  # E


def facts_that_an_event_does_not_have(harbor: Harbor) -> None:
    for letter in harbor.events(kinds=JobDead):
        letter.next_in  # E
    for failure in harbor.events(kinds=(JobDead, JobRetrying)):
        failure.reason  # E
    for event in harbor.events():
        event.worker  # E


def results_of_the_wrong_type(harbor: Harbor) -> None:
    harbor.results("resize")  # E
    harbor.results(resize.fn)  # E
    for done in harbor.results(resize):
        done.result.colour  # E


def handles_that_tell_nothing_of_the_kind(handle: JobHandle[int], harbor: Harbor) -> None:
    handle.progress().done  # E
    handle.log().text  # E
    harbor.feed("dashboard")  # E
    harbor.feed(after=5)  # E
