"""What an application declares about schedules: in code, with its tasks, and in files.

    template.py      a call and a schedule, made into what a store keeps
    entries.py       one entry of a file, read against its task's signature
    files.py         the file itself: TOML or YAML
    declarations.py  the whole set of a harbor, and its digest
    face.py          the methods of a harbor

Workers declare the set when they start; by hand it is declared with `harbor.declare_schedules`.
"""

from taskharbor.declaring.declarations import Declarations
from taskharbor.declaring.face import Declaring
from taskharbor.declaring.template import Template, template

__all__ = ["Declarations", "Declaring", "Template", "template"]
