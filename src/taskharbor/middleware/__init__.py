"""Middleware: layers of code around enqueues and around attempts."""

from taskharbor.task.layer import Attempt, Middleware, Outgoing

__all__ = ["Attempt", "Middleware", "Outgoing"]
