"""From a URL to a driver: our own by scheme, anybody's through the entry-point group `taskharbor.drivers`."""

from taskharbor.drivers.registry import available_drivers, driver_for, open_driver

__all__ = ["available_drivers", "driver_for", "open_driver"]
