"""Random search: every untried admissible configuration is as likely as any other."""

from __future__ import annotations

from evo.search.proposer import HistoryProposer


class RandomProposer(HistoryProposer):
    """Draws without replacement; the control arm that every other proposer must beat."""
