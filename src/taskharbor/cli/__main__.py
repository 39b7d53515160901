"""`python -m taskharbor.cli`, for where the console script is not on the path."""

from taskharbor.cli import app

# The name is given: it would otherwise read `__main__.py` in the help.
app(prog_name="taskharbor")
