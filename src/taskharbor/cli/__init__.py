"""The command line: `taskharbor COMMAND`, an outer door that nothing inside imports.

entry.py         the whole: global options, commands, errors and exit codes
target.py        which harbor a command works on: `--app`, `--url`; store.py whether its store is there
application.py   importing the user's application
worker.py        `worker`: its options; launching.py starts it, logs.py sets logging up, serving.py runs it, signals.py
                 hears what it is told, closing.py tells what `--until-idle` did and left
dev.py           `dev`: its options; reloading.py keeps a worker running, and starts it afresh when files change
enqueue.py       `enqueue`; arguments.py reads its arguments as the task declares them
tasks.py schema.py jobs.py dlq.py flows.py queues.py workers.py leader.py stats.py events.py prune.py migrate.py
info.py          a file for each further family
schedules.py     `schedules`: schedule_create.py makes one at run time, schedule_view.py shows them
filters.py       which jobs are meant, and the options that say so
listing.py       pages of jobs and of flows
showing.py       shows jobs whole: job_view.py one of them, step_view.py its place in a flow, input_view.py what earlier
                 steps gave it, readable.py values without their types
acting.py        acts on many jobs, or flows, by id, told one by one; verbs.py has what can be done to them
bulk.py          does it to all that match; rehearsal.py only tells what would be done, and which could run
export.py        writes jobs to a file
watch.py         `jobs watch`: watching.py follows jobs (news.py: what is new, watch_view.py: how it is shown),
                 overview.py shows what goes on
flow_view.py     shows one flow, and draws it; lanes.py has the lines of the drawing, stalled.py what nobody takes
completing.py    what a shell offers when Tab is pressed
values.py        durations, sizes, instants and lists, as text
output.py        lines, JSON lines, progress, questions; tables.py has the tables
exits.py         which error ends the process with which code
reference.py     writes docs/reference/cli.md
"""

from taskharbor.cli.entry import app, main

__all__ = ["app", "main"]
