"""Shows jobs, one after the other, whole: for people, or a line of JSON each."""

from __future__ import annotations

from collections.abc import Iterable

from taskharbor.cli.acting import FEW, batches
from taskharbor.cli.input_view import inputs_for_programs, told_inputs
from taskharbor.cli.job_view import for_people, for_programs
from taskharbor.cli.listing import look_up
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.step_view import told_place
from taskharbor.control import not_found
from taskharbor.harbor import Harbor


def show_jobs(harbor: Harbor, ids: Iterable[str], *, as_json: bool) -> bool:
    """Print all that is known of jobs; return whether all were there."""
    well = True
    first = True
    for batch in batches(ids, size=FEW):
        records = look_up(harbor, batch)
        for job_id, record in zip(batch, records, strict=True):
            if record is None:
                note(str(not_found(job_id)))
                well = False
            elif as_json:
                json_line(for_programs(harbor, record, inputs_for_programs(harbor, record)))
            else:
                if not first:
                    line()
                first = False
                for told in for_people(
                    harbor, record, told_place(harbor, record), told_inputs(harbor, record)
                ):
                    line(told)
    return well
