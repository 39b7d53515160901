"""What can be set from outside: by the environment, and by a file beside the application.

declared.py      `Settings`: each setting, its type, its default and its meaning
text.py          durations and sizes as people write them
environment.py   the variables `TASKHARBOR_*`; which of them are no settings
file.py          finding `taskharbor.toml` or `[tool.taskharbor]` in pyproject.toml, and reading it
loading.py       all of it together, with where each value came from
store.py         the store that they name, for a harbor that is given none
reference.py     writes docs/reference/settings.md

What is passed in code comes first, then the environment, then the file, then the default.
"""

from taskharbor.settings.declared import Settings
from taskharbor.settings.loading import Loaded, Shown, load_settings

__all__ = ["Loaded", "Settings", "Shown", "load_settings"]
