"""Work that keeps the store in order: reclaiming from the dead, ending retention."""

from taskharbor.upkeep.upkeep import Upkeep

__all__ = ["Upkeep"]
