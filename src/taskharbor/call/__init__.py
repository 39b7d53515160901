"""What a producer holds: calls, signatures, handles, and the way to the harbor that sends them."""

from taskharbor.call.call import Call, Callee
from taskharbor.call.dispatcher import (
    Dispatcher,
    FlowDesk,
    RunningJob,
    Sent,
    current_dispatcher,
    enter,
    install,
    leave,
    refuse_in_handler,
    refuse_on_loop,
    running_job,
    sheltered,
    uninstall,
)
from taskharbor.call.fitting import shown
from taskharbor.call.flow_handle import FlowHandle, FlowStatus
from taskharbor.call.graph import (
    Each,
    FlowCall,
    FlowOptions,
    Group,
    Node,
    Placeholder,
    Then,
    title,
)
from taskharbor.call.handle import JobHandle, JobStatus
from taskharbor.call.options import FlowConflictName, OnConflictName, Options
from taskharbor.call.picture import FlowGraph, FlowPart, FlowStep, draw
from taskharbor.call.reading import reader_of
from taskharbor.call.signature import (
    Flow,
    Link,
    Signature,
    Step,
    apply,
    flow_options,
    handles,
    refuse_replacing,
    sendables,
    several,
)
from taskharbor.call.wait_limit import WaitLimit

__all__ = [
    "Call",
    "Callee",
    "Dispatcher",
    "Each",
    "Flow",
    "FlowCall",
    "FlowConflictName",
    "FlowDesk",
    "FlowGraph",
    "FlowHandle",
    "FlowOptions",
    "FlowPart",
    "FlowStatus",
    "FlowStep",
    "Group",
    "JobHandle",
    "JobStatus",
    "Link",
    "Node",
    "OnConflictName",
    "Options",
    "Placeholder",
    "RunningJob",
    "Sent",
    "Signature",
    "Step",
    "Then",
    "WaitLimit",
    "apply",
    "current_dispatcher",
    "draw",
    "enter",
    "flow_options",
    "handles",
    "install",
    "leave",
    "reader_of",
    "refuse_in_handler",
    "refuse_on_loop",
    "refuse_replacing",
    "running_job",
    "sendables",
    "several",
    "sheltered",
    "shown",
    "title",
    "uninstall",
]
