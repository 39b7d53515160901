"""The store that the settings name, for a harbor that is given none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from taskharbor.drivers import driver_for
from taskharbor.errors import DriverURLError
from taskharbor.settings.declared import DEFAULT_URL
from taskharbor.settings.loading import load_settings

if TYPE_CHECKING:
    from taskharbor.driver import Driver

logger = logging.getLogger("taskharbor")


def configured_driver() -> Driver:
    """Return the driver of the store that the settings name; logs which, where nobody named one.

    Raises:
        DriverURLError: no driver understands the URL; says where it stands.
        MissingExtraError: the driver needs a package that is not installed.
        OptionError: some setting cannot be, this one or another.
        DeploymentError: the file of settings cannot be read.
    """
    loaded = load_settings()
    url = loaded.settings.url
    if not loaded.given("url"):
        logger.info("no URL was given: using %s", Path(DEFAULT_URL.partition(":///")[2]).absolute())
        return driver_for(url)
    origin = loaded.origins["url"].partition(" ")[2]
    if loaded.origins["url"].startswith("file "):
        logger.info("the store's URL is taken from %s", origin)
    try:
        return driver_for(url)
    except DriverURLError as error:
        raise DriverURLError(f"{origin}: {error}") from error
