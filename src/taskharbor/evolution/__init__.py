"""Whether stored jobs survive another version of an application: its tasks, dumped and compared.

dump               what a version declares, as a file that the next one is checked against
compatibility      what the next one changes, task by task, and what that means for jobs that are stored
subschema          whether one schema accepts all that another allows; `subschema_values`, `subschema_parts` for plain
                   values, and for the pieces of a schema

How a job is read by a version that its arguments were not written under is `task/upgrading.py`'s.
"""
