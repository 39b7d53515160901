"""The memory driver: the reference for every rule. A file per verb family, over the tables of `tables.py`."""

from taskharbor.drivers.memory.driver import MemoryDriver

__all__ = ["MemoryDriver"]
