"""Nothing of a fleet outlives its driver: a small watcher ends what is left and removes the fleet's folder.

It holds the reading end of a pipe whose other end only the driver has. When the driver closes it or dies, by whatever
signal, the watcher kills every process of the fleet and deletes the folder. A process is of the fleet if it carries its
mark in the environment, or, since some overwrite theirs with a title, if it has a file open in the folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

MARK = "EVO_FLEET"
FOLDER = "EVO_FLEET_FOLDER"  # where the fleet's processes on this machine put their temporary files
_LONGEST = 32  # characters of a temporary folder: Ray puts sockets below it, whose names may have 107 in all

# Waits for the end of file on its input. New processes may start while it looks, so it looks again until there is none.
_WATCH = r"""
trap '' INT TERM HUP QUIT
read -r _
tries=0
while [ $tries -lt 50 ]; do
  found=$({ grep -lazx "$1" /proc/[0-9]*/environ; find /proc/[0-9]*/fd -lname "$2/*"; } 2>/dev/null |
    sed 's,^/proc/\([0-9]*\)/.*,\1,' | sort -u | grep -vx "$3")
  [ -z "$found" ] && break
  kill -KILL $found 2>/dev/null
  tries=$((tries + 1)); sleep 0.2
done
rm -rf "$2" || { sleep 1; rm -rf "$2"; }
"""


class Sweeper:
    """Marks this process's future children and watches over them; `folder` is theirs to write in."""

    def __init__(self) -> None:
        usual = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="evo-fleet-", dir=usual if len(usual) < _LONGEST else "/tmp"))
        mark = f"{MARK}={secrets.token_hex(8)}"
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        reading, self._writing = os.pipe()
        try:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "evo-sweeper", mark, str(self.folder), str(os.getpid())],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._writing)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            os.close(reading)
        os.environ[MARK] = mark.partition("=")[2]
        os.environ[FOLDER] = str(self.folder)

    def sweep(self) -> None:
        """End what is left and remove the folder, now."""
        for name in (MARK, FOLDER):
            os.environ.pop(name, None)
        os.close(self._writing)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._watcher.wait(timeout=30)
