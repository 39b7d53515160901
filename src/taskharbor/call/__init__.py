"""What a producer holds: calls, signatures, handles, and the way to the harbor that sends them."""

from taskharbor.call.call import Call, Callee
from taskharbor.call.dispatcher import (
    Dispatcher,
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
from taskharbor.call.handle import JobHandle, JobStatus
from taskharbor.call.options import OnConflictName, Options
from taskharbor.call.signature import Flow, FlowHandle, Link, Signature
from taskharbor.call.wait_limit import WaitLimit

__all__ = [
    "Call",
    "Callee",
    "Dispatcher",
    "Flow",
    "FlowHandle",
    "JobHandle",
    "JobStatus",
    "Link",
    "OnConflictName",
    "Options",
    "RunningJob",
    "Sent",
    "Signature",
    "WaitLimit",
    "current_dispatcher",
    "enter",
    "install",
    "leave",
    "refuse_in_handler",
    "refuse_on_loop",
    "running_job",
    "sheltered",
    "uninstall",
]
