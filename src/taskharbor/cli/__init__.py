"""The command line: `taskharbor COMMAND`, an outer door that nothing inside imports.

entry.py         the whole: global options, commands, errors and exit codes
target.py        which harbor a command works on: `--app`, `--url`; store.py whether its store is there
application.py   importing the user's application
worker.py        `worker`: its options; launching.py starts it, logs.py sets logging up, serving.py runs it, signals.py
                 hears what it is told, closing.py tells what `--until-idle` did and left
enqueue.py       `enqueue`; arguments.py reads its arguments as the task declares them
tasks.py jobs.py dlq.py flows.py migrate.py info.py     a file for each further family
listing.py       pages of jobs and of flows; job_view.py shows one job, step_view.py its place in a flow
flow_view.py     shows one flow, and draws it; lanes.py has the lines of the drawing
acting.py        acts on many jobs, or flows, by id, told one by one
values.py        durations, sizes, instants and lists, as text
output.py        lines, JSON lines, progress, questions; tables.py has the tables
exits.py         which error ends the process with which code
reference.py     writes docs/reference/cli.md
"""

from taskharbor.cli.entry import app, main

__all__ = ["app", "main"]
