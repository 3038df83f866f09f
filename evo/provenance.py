"""Where results come from: this machine's software and the state of the sources."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from evo import __version__
from evo.record import Environment
from evo.targets import DeviceFacts


@dataclass(frozen=True, slots=True)
class GitState:
    """The commit that is checked out, and whether the tree differs from it; empty outside a repository."""

    sha: str = ""
    dirty: bool = False


def git_state(folder: Path) -> GitState:
    """The state of the repository that `folder` lies in.

    Where the sources travel without their repository (an image, an archive), EVO_COMMIT says which commit they are:
    the hash, with "-dirty" behind it if the tree differed.
    """
    said = os.environ.get("EVO_COMMIT", "")
    if said:
        return GitState(said.removesuffix("-dirty"), said.endswith("-dirty"))

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    sha = git("rev-parse", "HEAD")
    return GitState(sha, bool(git("status", "--porcelain", "--untracked-files=no"))) if sha else GitState()


def describe_environment(facts: DeviceFacts, toolchain: str, torch: str, sources: Path) -> Environment:
    """The environment of a campaign; `sources` is the folder of the base."""
    state = git_state(sources)
    return Environment(
        device=facts.name,
        uuid=facts.uuid,
        arch=facts.arch,
        driver=facts.driver,
        toolchain=toolchain,
        torch=torch,
        python=platform.python_version(),
        evo=__version__,
        git_sha=state.sha,
        dirty=state.dirty,
        host=socket.gethostname(),
        clocks=dict(facts.clocks),
    )
