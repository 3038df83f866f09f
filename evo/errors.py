"""What a user did that cannot work, in one line that says where and what was expected."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: a file, an argument or a database that the user can mend. Printed as one line, exit code 2."""


class WorkersLost(InputError):
    """The last worker is gone and none comes back: the search stops here and can be resumed."""
