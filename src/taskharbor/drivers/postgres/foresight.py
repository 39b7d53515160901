"""What a settle of several statements will lock, locked beforehand and in order.

Each of its statements would lock steps that wait, in order of id; but the second one after the first. Two batches that
have members of the same two flows, one of which falls, could then wait for each other, and be a second late.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.drivers.postgres.cancelling import LOCK_ORDER
from taskharbor.drivers.postgres.falling import GOING, locked_flows
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.uniqueness import holders_of
from taskharbor.settlement import SettleKind, Settlement

# Of each job what its end concerns: those that wait for its result or are told of its failure; its flow, if it is the
# last step or fails; and all steps of a flow that ends with it.
_CONCERNED = f"""WITH own AS MATERIALIZED (SELECT j.id, j.flow, s.kind, j.absorbers IS NULL AS counts,
        CASE WHEN s.kind = 'succeed' THEN j.edges ELSE j.absorbers::jsonb END AS edges
    FROM unnest($1::text::uuid[], $2::text::text[]) s(id, kind) CROSS JOIN LATERAL (
        SELECT h.id, h.flow, h.edges, h.absorbers FROM taskharbor.job h
        WHERE h.id = s.id AND h.waits IS NOT NULL LIMIT 1) j),
ends AS MATERIALIZED (SELECT DISTINCT flow FROM own WHERE kind = 'cancel' AND counts AND flow IS NOT NULL)
SELECT 'job', id::text FROM own
UNION SELECT 'job', e.value ->> 0 FROM own o CROSS JOIN LATERAL jsonb_array_elements(o.edges) e(value)
UNION SELECT 'job', f.id::text FROM ends o CROSS JOIN LATERAL (
    SELECT j.id FROM taskharbor.job j WHERE j.flow = o.flow AND j.flow IS NOT NULL
    AND (SELECT w.state FROM taskharbor.flow w WHERE w.id = o.flow) IN {GOING} OFFSET 0) f
UNION SELECT 'flow', flow::text FROM own WHERE flow = id OR (kind <> 'succeed' AND counts AND flow IS NOT NULL)"""
_LOCK = f"""SELECT id::text FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])
    ORDER BY {LOCK_ORDER} FOR UPDATE"""


def lock_ahead(step: Step, settlements: Sequence[Settlement]) -> Routine[set[str]]:
    """Lock whatever these settlements concern, if that is more than one statement's, and return which jobs are.

    So are jobs whose keys are wanted by what the successes bring: it may replace them, or look at where they stand.
    """
    brought = [job for s in settlements if s.sequel is not None for job in s.sequel.jobs]
    holders = yield from holders_of(step, brought)
    if holders:
        holders.update([s.job_id for s in settlements])
    falls = any(s.kind in _FALLS for s in settlements)
    waits = {job_id for s in settlements if s.sequel is not None for job_id in s.sequel.waits}
    if not holders and (len(settlements) == 1 or not (falls or waits)):
        return set()
    told = [s for s in settlements if s.kind in _FALLS or s.kind is SettleKind.SUCCEED]
    cells = plain_array([s.job_id for s in told]), plain_array([s.kind for s in told])
    concerned = yield Query(_CONCERNED, cells)
    jobs = waits.union(holders, (job_id for what, job_id in concerned if what == "job"))
    if jobs:
        yield Query(_LOCK, (plain_array(jobs),))
    flows = [flow for what, flow in concerned if what == "flow"]
    if len(flows) > 1:
        yield from locked_flows(flows)
    return jobs


_FALLS = {SettleKind.BURY, SettleKind.CANCEL}
