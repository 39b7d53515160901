"""The name of a task that was given none."""

from __future__ import annotations

import sys
from pathlib import Path

from taskharbor.task.reading import Handler


def default_name(fn: Handler) -> str:
    """Return `module.qualname`, where a script's `__main__` is told by its file's name.

    A worker imports the script as a module, so its tasks must bear the same names there.
    """
    module = str(getattr(fn, "__module__", None) or "")
    if module in ("__main__", "__mp_main__"):
        main = sys.modules.get(module)
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is not None and spec.name not in ("__main__", "__mp_main__", ""):
            module = str(spec.name)
        elif file:
            path = Path(str(file))
            module = path.stem if path.stem != "__main__" else path.absolute().parent.name
    module = module.removesuffix(".__main__")
    qualname = str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)
    return f"{module}.{qualname}".replace(".<locals>", "")
