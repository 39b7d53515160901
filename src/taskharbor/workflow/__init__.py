"""What joins calls into flows: `chain`, `group`, `chord`, `gather` and `each`."""

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
