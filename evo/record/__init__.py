"""results.db: every campaign, outcome and raw sample. The only code that imports sqlalchemy.

record = open_record("results.db")
campaign_id = record.start_campaign(CampaignSpec(...))
record.record_trial(campaign_id, Trial(number=0, variant=VariantRecord.of(variant, built), outcome=outcome))
record.finish_campaign(campaign_id, "done", "budget spent")
"""

from __future__ import annotations

from evo.record.drivers import is_abandoned
from evo.record.open import check_place, database_name, is_missing
from evo.record.record import Record, open_record, upgrade_database
from evo.record.values import (
    Campaign,
    CampaignSpec,
    Elite,
    Environment,
    Event,
    Failure,
    Interval,
    Origin,
    Place,
    Point,
    Profile,
    Promotion,
    RecordedPromotion,
    RecordedTrial,
    Samples,
    Trial,
    VariantRecord,
)

__all__ = [
    "Campaign",
    "CampaignSpec",
    "Elite",
    "Environment",
    "Event",
    "Failure",
    "Interval",
    "Origin",
    "Place",
    "Point",
    "Profile",
    "Promotion",
    "Record",
    "RecordedPromotion",
    "RecordedTrial",
    "Samples",
    "Trial",
    "VariantRecord",
    "check_place",
    "database_name",
    "is_abandoned",
    "is_missing",
    "open_record",
    "upgrade_database",
]
