"""What joins calls into flows: `chain`, `group`, `chord`, `gather` and `each`; and how a flow becomes steps.

chaining, grouping, gathering, fanning, pipeline    the builders, which make trees of calls (`call.graph`)
members, unjoined, defaults                         what they are given, and the slips that are named
lowering                                            a tree as it is stored: begin here
walking                                             which step waits for which
drafts, making                                      a step on the way, and its job
spool                                               many jobs on their way to the store
"""

from taskharbor.workflow.chaining import chain
from taskharbor.workflow.fanning import each
from taskharbor.workflow.gathering import Gather2, Gather3, Gather4, Gather5, gather
from taskharbor.workflow.grouping import chord, group
from taskharbor.workflow.pipeline import Pipeline

__all__ = [
    "Gather2",
    "Gather3",
    "Gather4",
    "Gather5",
    "Pipeline",
    "chain",
    "chord",
    "each",
    "gather",
    "group",
]
