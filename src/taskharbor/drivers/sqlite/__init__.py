"""The SQLite driver: one file, many processes, no server.

    place        where the file is, what the URL says, whether it can be used there
    schema       the tables, as numbered migrations
    rows         between the words of the contract and what the tables hold
    routine      a verb as a generator: it yields statements and receives rows
    enqueue, reserve, settle, lease, look, control, flow, queue, upkeep     the verbs, a family a file
    deliver      reserved jobs, read as deliveries
    leaving      how jobs leave a lease: back into a lane, or into the history or the dead letters
    inputs       what came in for the steps of flows
    advance      what the end of one step means to the others
    ending       how whole flows end, fail and go on
    connection   one connection: opened, checked, its errors read
    forks        no connection is open while the process forks
    transaction  running routines: several of them in one transaction, again while the file is locked
    courtesy     heartbeats first
    checkpoint   folding the log back into the file
    desk         a thread with a connection, and the line before it
    store        the verbs' two faces: a thread of its own for event loops, and a blocking one
    joining      enqueue in a transaction of the caller's own
    bell         wake-ups, in this process and across processes
    driver       the whole

Statements take and give whole batches, as JSON beside one blob: Python's sqlite3 gives up the interpreter's lock at
every row it steps to, and takes up to five milliseconds to get it back from a busy event loop (ADR 0006).
"""

from taskharbor.drivers.sqlite.driver import SqliteDriver, open_driver

__all__ = ["SqliteDriver", "open_driver"]
