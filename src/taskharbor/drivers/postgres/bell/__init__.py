"""Wake-ups between processes, by LISTEN and NOTIFY (https://www.postgresql.org/docs/current/sql-notify.html).

    bell         subscriptions of this process, and whom a ring or a notice concerns
    watchers     who waits for what, in this process
    notice       what a NOTIFY says
    ringing      the thread that sends: notices, and which jobs are awaited
    agenda       what waits to be sent, and when it is due
    awaiting     the statement that marks jobs as awaited
    listening    the thread that hears: the life of the listening connection
    outage       how long to wait before another try, and saying once that something fails

A ring goes out after its commit, from a thread of its own, so nobody waits for it. It is sent by the application and
not by a row trigger: each commit with a NOTIFY takes a lock that the whole server shares, so what is rung within a few
milliseconds goes out once.

Whoever waits for a job has its row marked `awaited`, and a settle tells which of the jobs it ended were. So the many
jobs that nobody waits for cost nothing. The order matters: LISTEN first, then the mark. A settle that saw no mark had
deleted the row, or holds it locked, when the mark was to be set; then the job is looked for again, until it is marked
or gone, and who waits for one that is gone is woken. A job that has just become due is not marked either, for a moment:
the worker that was woken for it would pass over the locked row.

Wake-ups are hints: nothing is lost with one, and one too many does no harm.
"""

from __future__ import annotations

from taskharbor.drivers.postgres.bell.bell import Bell

__all__ = ["Bell"]
