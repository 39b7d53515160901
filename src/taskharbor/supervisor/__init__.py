"""Worker processes: a parent that starts them, keeps them alive, and ends them.

    supervisor  the question as it is asked
    loop        the parent's loop: it blocks until a signal, a process or a deadline asks something of it
    slot        one place among N, and the process that stands in it now
    child       one started process: its session, its lifeline, its end
    lifeline    the wire between parent and process, seen from the process
    restart     when to start again, as plain functions of how a process ended
    signals     signals as bytes in a pipe, so that none comes at a bad moment
    exits       the codes with which processes end

            supervisor ---- lifeline ---- process 1     each in a session of its own,
                       `--- lifeline ---- process 2     standard output and error inherited

Invariants:

- *A process is started by exec*, never by forking a running program: nothing of the parent's threads, locks or
  connections comes with it. The parent never imports the application.
- *No orphan.* The parent alone holds its end of each lifeline. When it ends, however, the others read the end of the
  file, drain, and end. (Linux' PR_SET_PDEATHSIG would not do: it tells of the death of a thread, and leaves no time.)
- *No zombie.* Every process is waited for; as PID 1 of a container also those that others left behind.
- *A process leads a session of its own.* Ctrl-C then reaches the parent alone, which drains; a terminal cannot stop a
  worker in the background for writing to it; and what a killed worker has left running can be killed as its group.
  The price: Ctrl-Z stops the parent alone. That is meant: a stopped worker would lose its leases.
- *To a process SIGTERM means drain, however often it comes; SIGINT means halt.* Service managers such as systemd send
  SIGTERM to every process of a service, next to the one that the parent forwards; that must not count as two.
- *The first end decides.* When no process has ever come up and one says that the command line or the deployment is
  wrong, all end with its code. Once one has worked, that is a bad moment to be waited out.
"""

from taskharbor.supervisor.exits import Exit
from taskharbor.supervisor.lifeline import LIFELINE_VARIABLE, PROCESS_VARIABLE, Lifeline
from taskharbor.supervisor.supervisor import supervise

# As `sorted` has it, which the tests ask of every window; ruff would have the constants first.
__all__ = ["Exit", "LIFELINE_VARIABLE", "Lifeline", "PROCESS_VARIABLE", "supervise"]  # noqa: RUF022
