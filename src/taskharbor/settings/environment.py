"""The environment's part: the variables `TASKHARBOR_*`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from taskharbor.errors import OptionError, nearest
from taskharbor.settings.declared import NAMES, variable_of

PREFIX: Final = "TASKHARBOR_"
CONFIG_VARIABLE: Final = "TASKHARBOR_CONFIG"
"""Names the file to read, instead of the nearest one."""

_VARIABLES: Final = {variable_of(name): name for name in NAMES}
_OURS: Final = re.compile(
    "TASKHARBOR_(?:CONFIG"
    "|PROCESS|LIFELINE"  # a supervisor's word to its processes
    "|COMPLETE|COMPLETE_ARGS"  # a shell's, which completes a command line
    "|(?:TEST|BENCH)_.*)"  # the suite's and the benchmarks' own
)
"""What begins like a setting, and is none."""
_KUBERNETES: Final = re.compile(
    r"TASKHARBOR_(?:[A-Z0-9_]+_)?(?:SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)"
    r"|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes tells every container of a Service named `taskharbor` or `taskharbor-...`
(https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables)."""


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each setting that the environment holds; what is empty counts as not there.

    Raises:
        OptionError: a variable that is no setting; says which comes nearest.
    """
    found: dict[str, str] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = _VARIABLES.get(variable)
        if name is not None:
            if text:
                found[name] = text
        elif not (_OURS.fullmatch(variable) or _KUBERNETES.fullmatch(variable)):
            raise OptionError(
                f"the environment sets {variable}, and there is no such setting{nearest(variable, list(_VARIABLES))}; "
                f"correct its name or unset it (there are {', '.join(_VARIABLES)})"
            )
    return found
