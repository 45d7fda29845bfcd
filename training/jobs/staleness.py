"""Who is due for a training, and why: new words, age, the calendar, another base model. Plain code, no database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from croniter import CroniterError, croniter

from training.jobs.errors import JobRequestInvalid
from training.jobs.states import Trigger

_CRON_FIELDS = 5
_DICE = re.compile(r"(?<![a-z])[rh](?![a-z])", re.IGNORECASE)  # croniter's own: another moment each time it is asked


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When a tenant's users are trained without anybody asking; None = never for that reason.

    `min_words`: own words that nobody is trained below; `new_words`: own words since the training;
    `new_share`: as a share of the words trained on, reached together with `new_words`;
    `max_age_days`: age of the live version, when there is anything new; `schedule`: a cron line, UTC;
    `base_change`: the live version is of another base model than the one that is trained for;
    `settings`: those that trainings by these rules have, as `training.jobs.job.Submission` takes them.
    """

    enabled: bool = False
    min_words: int = 300
    new_words: int | None = 1000
    new_share: float = 0.2
    max_age_days: float | None = 30.0
    schedule: str | None = None
    base_change: bool = False
    priority: int = -10
    settings: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> Rules:
        """Return these rules.

        Raises:
            JobRequestInvalid: naming the rule that cannot be followed.
        """
        for name in ("min_words", "new_words", "new_share", "max_age_days"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise JobRequestInvalid(f"{name} must not be negative (got {value})", field=name)
        if self.schedule is not None and not _is_schedule(self.schedule):
            raise JobRequestInvalid(
                "schedule must be a cron line of five fields that some moment fits, such as `0 3 * * 1`"
                f" (got {self.schedule!r})",
                field="schedule",
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What is known of one user: what is stored, and what the live version was trained on.

    `trained_words` and `trained_at` are None for a user without a version. A version that the gate refused counts as
    trained: the same words would be refused again.
    """

    words: int
    trained_words: int | None = None
    trained_at: datetime | None = None
    trained_base: str | None = None
    wanted_base: str | None = None
    submitted_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Due:
    """One reason to train, as a sentence for people."""

    trigger: Trigger
    reason: str


def due(known: Knowledge, rules: Rules, *, now: datetime) -> Due | None:
    """Return the first reason to train this user now, or None."""
    if not rules.enabled or known.words < max(rules.min_words, 1):
        return None
    if known.trained_at is None or known.trained_words is None:
        return Due(trigger=Trigger.VOLUME, reason=f"{known.words} own words and no adapter")
    for found in (_base(known, rules), _volume(known, rules), _age(known, rules, now), _calendar(known, rules, now)):
        if found is not None:
            return found
    return None


def _base(known: Knowledge, rules: Rules) -> Due | None:
    if not rules.base_change or None in (known.trained_base, known.wanted_base):
        return None
    if known.trained_base == known.wanted_base:
        return None
    return Due(trigger=Trigger.BASE, reason=f"trained for {known.trained_base}, wanted is {known.wanted_base}")


def _volume(known: Knowledge, rules: Rules) -> Due | None:
    new = known.words - (known.trained_words or 0)
    if rules.new_words is None or new < max(rules.new_words, rules.new_share * (known.trained_words or 0), 1):
        return None
    return Due(trigger=Trigger.VOLUME, reason=f"{new} own words since the training")


def _age(known: Knowledge, rules: Rules, now: datetime) -> Due | None:
    if rules.max_age_days is None or known.trained_at is None or known.words == known.trained_words:
        return None
    age = now - known.trained_at
    if age < timedelta(days=rules.max_age_days):
        return None
    return Due(trigger=Trigger.AGE, reason=f"{age.days} days old, with new words")


def _calendar(known: Knowledge, rules: Rules, now: datetime) -> Due | None:
    """A scheduled moment has passed since the user was last trained or submitted, and there is something new."""
    if rules.schedule is None or known.trained_at is None or known.words == known.trained_words:
        return None
    last = max(moment for moment in (known.trained_at, known.submitted_at) if moment is not None)
    moment = _last_moment(rules.schedule, now)
    if moment is None or moment <= last:
        return None
    return Due(trigger=Trigger.SCHEDULE, reason=f"scheduled for {moment:%Y-%m-%d %H:%M} UTC")


def _is_schedule(line: str) -> bool:
    if len(line.split()) != _CRON_FIELDS or _DICE.search(line) or not croniter.is_valid(line):
        return False
    return _last_moment(line, datetime.now(UTC)) is not None


def _last_moment(line: str, now: datetime) -> datetime | None:
    """Return the last moment of a cron line; None for one that no moment fits, such as the 30th of February."""
    try:
        moment: datetime = croniter(line, now.astimezone(UTC)).get_prev(datetime)
    except CroniterError:
        return None
    return moment
