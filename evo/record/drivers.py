"""Whether the process that runs a campaign still lives."""

from __future__ import annotations

import os
import socket
import time

from evo.record.values import Campaign

ABANDONED_S = 60.0  # a driver on another host that has been silent for so long is taken for dead


def is_abandoned(campaign: Campaign, now: float | None = None) -> bool:
    """Whether a campaign is called running but its driver is gone."""
    if campaign.state != "running":
        return False
    silent_s = (now or time.time()) - campaign.heartbeat_at
    if campaign.host == socket.gethostname() and _process_lives(campaign.pid):
        return silent_s > 10 * ABANDONED_S  # another process may have got the number since
    return campaign.host == socket.gethostname() or silent_s > ABANDONED_S


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
