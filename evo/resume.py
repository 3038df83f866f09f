"""Going on with a campaign that did not come to its end: which one, and what of it still holds."""

from __future__ import annotations

from dataclasses import replace

from evo.errors import InputError
from evo.record import Campaign, Place, Record, is_missing, open_record
from evo.setting import SearchRequest, Setting, resolve


def find_unfinished(request: SearchRequest) -> Campaign | None:
    """The campaign that `resume` would go on with, newest first; None when there is none. Raises: InputError."""
    if is_missing(request.db):
        return None
    setting = resolve(request)
    place = Place(setting.base.name, setting.case_name, setting.dtype, arch="")
    with open_record(request.db) as record:  # another search may be making it just now
        return next(iter(_unfinished(record, setting, place)), None)


def _unfinished(record: Record, setting: Setting, place: Place) -> list[Campaign]:
    """Unfinished campaigns of this place and target, newest first."""
    return [
        campaign
        for campaign in record.unfinished_campaigns(place.base)
        if (campaign.case_name, campaign.dtype, campaign.target) == (place.case_name, place.dtype, setting.target)
        and (not place.arch or campaign.arch == place.arch)
        and bool(campaign.replay) == (setting.recording is not None)
    ]


def to_resume(record: Record, setting: Setting, place: Place) -> Campaign:
    """The campaign to go on with at this place, newest first. Raises: InputError when there is none."""
    found = _unfinished(record, setting, place)
    if not found:
        raise nothing_to_resume(record.name, setting, f" on {place.arch}")
    return found[0]


def nothing_to_resume(database: str, setting: Setting, where: str = "") -> InputError:
    """That a database has no such campaign."""
    what = f"{setting.base.name}, case {setting.case_name} {setting.dtype}{where}"
    return InputError(f"--resume: {database} has no unfinished campaign of {what}")


def as_before(request: SearchRequest, campaign: Campaign, searched_s: float) -> SearchRequest:
    """The request with proposer, seed, budget, limits and control arm of the campaign that it goes on with.

    Of its time limit it has what is left after `searched_s`; one that is given now begins now.
    """
    limit_s = campaign.options.get("time_limit_s")
    left_s = None if limit_s is None else max(0.0, limit_s - searched_s)
    return replace(
        request,
        proposer=campaign.proposer,
        seed=campaign.seed,
        budget=campaign.budget if request.own_budget else request.budget,
        time_limit_s=left_s if request.time_limit_s is None else request.time_limit_s,
        patience=request.patience or campaign.patience,
        control_share=campaign.control_share,
    )


def stream_of(seed: int, told: int) -> int:
    """The seed of a proposer that goes on after `told` outcomes: it must not draw again what it drew before."""
    return seed if told == 0 else (seed + 1_000_003 * told) % 2**31
