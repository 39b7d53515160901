"""What Hypothesis draws: jobs to be, durations, sets of queues, how attempts end."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from hypothesis import strategies as st

from taskharbor.driver import AgedTake
from taskharbor.job import REPLACEABLE, AttemptError, JobState, KeyRule, NewJob, OnConflict
from taskharbor.outcome import Cancelled, Failed, Outcome, Rejected, Released, Snoozed, Strayed, Succeeded
from taskharbor.retry import Retry, RetryNumbers
from taskharbor_conformance.model.book import ZERO

QUEUES = ("mail", "images")
TASKS = ("send", "resize", "count")
BUILDS = ("build-1", "build-2")
NEW_BUILD = "build-3"
"""A build that never refuses anything, so that every stray job has somebody who can take it."""
WORKERS = ("anna", "bert")
KEYS = ("k1", "k2")
DEBOUNCED = "k3"
"""A key that is only ever enqueued to replace: of its jobs at most one waits that nobody has begun with."""

SECONDS = (1, 2, 5, 10, 30)
durations = st.sampled_from([timedelta(seconds=seconds) for seconds in SECONDS])
leases = st.sampled_from([timedelta(seconds=5), timedelta(seconds=30)])
queue_sets = st.lists(st.sampled_from(QUEUES), min_size=1, unique=True)
task_sets = st.frozensets(st.sampled_from(TASKS))
builds = st.sampled_from(BUILDS)
workers = st.sampled_from(WORKERS)
mostly_all = st.sampled_from([10, 2, 1, 10, 10, 0])

retries = st.builds(
    RetryNumbers,
    max_attempts=st.sampled_from([3, 5, 2, 1]),
    base_seconds=st.sampled_from([0.0, 2.0]),
    factor=st.just(2.0),
    cap_seconds=st.just(5.0),
    jitter=st.just(False),
)


not_begun = tuple(sorted(REPLACEABLE))
key_rules = st.builds(
    KeyRule,
    states=st.sampled_from([not_begun, tuple(JobState)]) | st.lists(st.sampled_from(JobState)).map(tuple),
    window=st.none() | durations,
    latest=st.none() | durations,
)
latests = st.none() | st.builds(KeyRule, states=st.just(not_begun), latest=st.none() | durations)
"""Rules of those that replace, whatever waits."""
aging = st.none() | st.builds(AgedTake, st.just(ZERO) | durations, st.integers(1, 3))


class Draft(msgspec.Struct, frozen=True):
    """A job to be, before it has an id and a time."""

    job: NewJob
    latest: KeyRule | None
    """The rule of one whose key is `DEBOUNCED`."""
    id_prefix: int
    """Ids are not always made in the order in which jobs are enqueued."""
    run_at_in: timedelta | None


drafts = st.builds(
    Draft,
    job=st.builds(
        NewJob,
        id=st.just(""),
        task=st.sampled_from(TASKS),
        payload=st.sampled_from([b"1", b"2"]),
        digest=st.sampled_from([b"1", b"1", b"2"]),
        codec=st.just("json"),
        fingerprint=st.just(7),
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([5, 5, 5, 0, 9]),
        run_in=st.none() | st.none() | durations,
        retry=retries,
        timeout=st.none() | durations,
        meta=st.sampled_from([{}, {"tenant": "a"}]),
        key=st.none() | st.sampled_from([*KEYS, DEBOUNCED]),
        key_rule=st.none() | st.none() | key_rules,
        key_ttl=st.sampled_from([timedelta(seconds=10), ZERO, timedelta(days=1)]),
        on_conflict=st.sampled_from(OnConflict),
        keep_result=st.booleans(),
        retain=st.sampled_from([timedelta(seconds=30), ZERO, timedelta(days=7)]),
    ),
    latest=latests,
    id_prefix=st.integers(0, 3),
    run_at_in=st.none() | st.sampled_from([timedelta(seconds=n) for n in (-30, -1, 0, 1, 30)]),
)

attempt_errors = st.builds(
    AttemptError, attempt=st.just(0), type=st.sampled_from(["ValueError", "OSError"]), message=st.just("no")
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, st.none() | st.just(b"3"), st.just("json")),
    st.builds(
        Failed,
        attempt_errors,
        st.none() | st.just(Retry.never),
        st.none() | st.just(ZERO) | durations,
    ),
    st.builds(Snoozed, st.just(ZERO) | durations),
    st.builds(Rejected, attempt_errors, st.just("rejected")),
    st.builds(Cancelled, st.just("stopped")),
    st.builds(Released, st.booleans()),
    st.builds(Strayed, st.just("not mine"), st.none() | builds),
)
