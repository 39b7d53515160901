"""`python -m taskharbor.cli`, for where the console script is not on the path."""

from taskharbor.cli import main

main()
