"""The PostgreSQL driver: the production store. `docs/postgres.md` draws its tables and tells how to run it.

place        which database a URL names, and our settings in it
schema       the tables, as numbered migrations, with     migrating    bringing them to a version
             migrations_later, those from the sixth on
routine      what a verb is written as                   step         what it works with
rows         between the contract's words and the tables
enqueue      job_enqueue                                  reserve      job_reserve, with its marks
marks        where the next reserve begins in each lane   settle       job_settle, with leaving
leaving      how jobs leave for the history               slots        the ring of the history's partitions
lease        lease_extend, lease_reclaim                  control      job_cancel, job_requeue, job_delete
look         job_get, job_find, job_count                 queue        pauses
stray        jobs that some could not run                 upkeep       the register, history_prune
schedule     schedule_find, ..._due, by hand              declaring    schedule_declare, schedule_create
firing       schedule_fire                                leader       leader_take, ..._release, ..._list
rules        the limits and holds in force                gates        what runs behind them, and when more may
limit        limit_declare, ..._set, ..._clear, ..._list  hold         hold_place, ..._lift, ..._list
shut         what they keep back: shown as parked         retention    rules of retention
audit        the trail, written with each act
schedule_rows  schedules between words and their table
connection   opening one                                  pool         those that are open, with lending
refusal      what errors mean                             whole        whether no table of ours was dropped
carry        running a routine                            gathering    enqueues asked at once, by one statement
desk         asking, and asking again                     store        the verbs' two faces
joining      the caller's own transaction                 home         whether a connection leads to our database
bell         wake-ups by LISTEN and NOTIFY
embedded     a server that TaskHarbor starts itself       driver       the whole
"""

from __future__ import annotations

from taskharbor.drivers.postgres.driver import PostgresDriver, open_driver
from taskharbor.drivers.postgres.place import Place

__all__ = ["Place", "PostgresDriver", "open_driver"]
