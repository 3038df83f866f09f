"""What can be asked of a results database: campaigns, trials, variants, elites, and what belongs to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from evo.errors import InputError
from evo.record import queries
from evo.record.drivers import is_abandoned
from evo.record.open import UNUSABLE, display_name, explain, raise_bugs
from evo.record.values import (
    Campaign,
    Elite,
    Event,
    Failure,
    Interval,
    Point,
    Profile,
    RecordedPromotion,
    RecordedTrial,
    Samples,
    VariantRecord,
)

P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """The reading half of a `Record`. Whatever the user can mend is an InputError in one line."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self.name = display_name(engine.url)

    @contextlib.contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except OverflowError:
            raise InputError(f"{self.name}: no campaign or trial has so large a number") from None
        except UNUSABLE as error:
            raise_bugs(error)
            raise InputError(f"{self.name}: {explain(error)}") from None

    def _read(self, query: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._user_errors(), self._engine.connect() as connection:
            return query(connection, *args, **kwargs)

    def campaigns(self, *, base: str | None = None, limit: int | None = None, offset: int = 0) -> list[Campaign]:
        """Campaigns with their counts, newest first."""
        return self._read(queries.read_campaigns, base=base, limit=limit, offset=offset)

    def campaign(self, campaign_id: int) -> Campaign:
        """One campaign. Raises: InputError when there is none of that id."""
        found = self._read(queries.read_campaigns, campaign_id=campaign_id)
        if not found:
            raise InputError(f"{self.name}: no campaign {campaign_id}; `evo runs` lists them")
        return found[0]

    def unfinished_campaigns(self, base: str | None = None) -> list[Campaign]:
        """Campaigns that can be resumed: interrupted, failed, or running without a living driver; newest first."""
        campaigns = self.campaigns(base=base)
        return [item for item in campaigns if item.state in ("interrupted", "failed") or is_abandoned(item)]

    def trials(
        self,
        campaign_id: int,
        *,
        after: int | None = None,
        valid_only: bool = False,
        details: bool = True,
        by_time: bool = False,
        limit: int | None = None,
    ) -> list[RecordedTrial]:
        """A campaign's trials by number, or fastest first; after: only numbers above."""
        return self._read(
            queries.read_trials,
            campaign_id=campaign_id,
            after=after,
            valid_only=valid_only,
            details=details,
            by_time=by_time,
            limit=limit,
        )

    def points(self, campaign_id: int, *, after: int = 0, most: int = 4000) -> list[Point]:
        """What charts need of the trials with an id above `after`; thinned beyond `most`, improvements kept."""
        return self._read(queries.read_points, campaign_id, after=after, most=most)

    def span(self, campaign_id: int) -> tuple[float, float] | None:
        """When the campaign's first trial started and its last was recorded; None without trials."""
        return self._read(queries.read_span, campaign_id)

    def searched_s(self, campaign_id: int) -> float:
        """Seconds that the campaign has searched, in all its runs."""
        return self._read(queries.read_searched_s, campaign_id)

    def changes(self) -> tuple[int, int, float]:
        """Last trial, last elite, latest heartbeat: equal as long as there is nothing new to show."""
        return self._read(queries.read_changes)

    def trial(self, trial_id: int) -> RecordedTrial:
        """One trial by its id. Raises: InputError when there is none."""
        found = self._read(queries.read_trials, trial_id=trial_id)
        if not found:
            raise InputError(f"{self.name}: no trial {trial_id}; `evo runs` lists campaigns and their trials")
        return found[0]

    def trials_numbered(self, campaign_id: int, numbers: Collection[int]) -> list[RecordedTrial]:
        """The campaign's trials of these numbers, without the compiler's words."""
        return self._read(queries.read_trials, campaign_id=campaign_id, numbers=numbers, details=False)

    def trials_of(self, variant_key: str) -> list[RecordedTrial]:
        """All trials of one variant, whatever the campaign."""
        return self._read(queries.read_trials, variant_key=variant_key)

    def variant(self, key: str) -> VariantRecord:
        """One variant with its sources. Raises: InputError when there is none."""
        found = self._read(queries.read_variant, key)
        if found is None:
            raise InputError(f"{self.name}: no variant {key}; `evo runs` lists campaigns and their variants")
        return found

    def binaries(self, campaign_id: int) -> dict[str, int]:
        """Binary hash -> number of the campaign's first trial with it."""
        return self._read(queries.read_binaries, campaign_id)

    def failures(self, campaign_id: int) -> list[Failure]:
        """Rejections counted by stage and reason, most frequent first."""
        return self._read(queries.read_failures, campaign_id)

    def samples(self, trial_id: int | None = None, *, promotion_id: int | None = None) -> list[Samples]:
        """Raw samples of one trial or one promotion."""
        if (trial_id is None) == (promotion_id is None):
            raise ValueError("samples: expected a trial or a promotion")
        return self._read(queries.read_samples, trial_id=trial_id, promotion_id=promotion_id)

    def campaign_samples(self, campaign_id: int) -> dict[int, tuple[float, ...]]:
        """Every variant's warm samples in microseconds, by trial id."""
        return self._read(queries.read_campaign_samples, campaign_id)

    def promotions(self, *, campaign_id: int | None = None, variant_key: str | None = None) -> list[RecordedPromotion]:
        """Promotions and refusals, newest first, without their samples."""
        return self._read(queries.read_promotions, campaign_id=campaign_id, variant_key=variant_key)

    def promotion(self, promotion_id: int) -> RecordedPromotion:
        """One promotion. Raises: InputError when there is none."""
        found = self._read(queries.read_promotions, promotion_id=promotion_id)
        if not found:
            raise InputError(f"{self.name}: no promotion {promotion_id}")
        return found[0]

    def elites(
        self,
        *,
        base: str | None = None,
        case_name: str | None = None,
        dtype: str | None = None,
        arch: str | None = None,
        variant_key: str | None = None,
        history: bool = False,
    ) -> list[Elite]:
        """Reigning elites by place and rank; history adds those of before."""
        return self._read(
            queries.read_elites,
            base=base,
            case_name=case_name,
            dtype=dtype,
            arch=arch,
            variant_key=variant_key,
            history=history,
        )

    def profiles(self, variant_key: str) -> list[Profile]:
        """What profilers read of a variant, newest first."""
        return self._read(queries.read_profiles, variant_key)

    def events(self, campaign_id: int, kind: str | None = None) -> list[Event]:
        """A campaign's events in order of time."""
        return self._read(queries.read_events, campaign_id, kind)

    def intervals(self, campaign_id: int) -> list[Interval]:
        """What the campaign's workers did, by start."""
        return self._read(queries.read_intervals, campaign_id)
