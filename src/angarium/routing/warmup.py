"""[warmup.NAME]: how much a new source may send to whom on which day.

Who a provider is says [shaping.provider.NAME] (queue/shaping.py). What is counted, and where, is queue/rations.pyx;
who asks before a message leaves, queue/ready.pyx.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

EPOCH: Final = datetime.date(1970, 1, 1)
_DAYS_MAXIMUM: Final = 366
_VOLUME_MAXIMUM: Final = 1_000_000_000
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class WarmupOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[warmup.NAME]

    sources    each of them by itself.
    begins     first day (UTC), "2026-12-01"; before it they send nothing that another source can.
    schedule   messages a day to each provider, and to all other sites together: first day, second day ... Behind its
               end they are warm.
    providers  of [shaping.provider.NAME]: instead of the schedule, for some of them.
    """

    sources: list[str]
    begins: str
    schedule: list[int]
    providers: dict[str, list[int]] = {}

    def __post_init__(self) -> None:
        try:
            first_day(self.begins)
        except ValueError as error:
            raise ValueError(f"begins: {error}") from None
        schedules = {"schedule": self.schedule}
        schedules |= {f"providers.{name}": schedule for name, schedule in self.providers.items()}
        for key, schedule in schedules.items():
            if not 1 <= len(schedule) <= _DAYS_MAXIMUM:
                raise ValueError(f"{key}: between 1 and {_DAYS_MAXIMUM} days")
            if not all(0 <= volume <= _VOLUME_MAXIMUM for volume in schedule):
                raise ValueError(f"{key}: messages a day, between 0 and {_VOLUME_MAXIMUM}")


class Ration(Protocol):
    """What queue.rations.Ration is."""

    @property
    def is_spent(self) -> bool: ...


class Table(Protocol):
    """What queue.rations.Rations is."""

    def ration(self, name: str, first_day: int, schedule: Iterable[int]) -> Ration: ...


class Warmups:
    """All plans, over one table of counts. A changed configuration is a new object over the same table.

    providers  names of [shaping.provider.*].
    is_empty   nothing is warmed up: nobody need ask.
    """

    def __init__(
        self,
        plans: Mapping[str, WarmupOptions],
        providers: Iterable[str],
        table: Table | None,
    ) -> None:
        self._table = table
        self._plans = {source: plan for plan in plans.values() for source in plan.sources}
        self._rations: dict[tuple[str, str], Ration] = {}
        self._names = ("", *providers)
        self.is_empty = not plans or table is None

    def ration(self, source: str, provider: str) -> Ration | None:
        """None: the source is in no plan."""
        plan = self._plans.get(source)
        if plan is None or self._table is None:
            return None
        key = source, provider
        if key not in self._rations:
            schedule = plan.providers.get(provider, plan.schedule)
            self._rations[key] = self._table.ration(ration_name(*key), first_day(plan.begins), schedule)
        return self._rations[key]

    def all(self) -> Iterator[tuple[str, str, Ration]]:
        """Source, provider ("": all other sites) and count, of all that there can be."""
        for source in self._plans:
            for provider in self._names:
                ration = self.ration(source, provider)
                if ration is not None:
                    yield source, provider, ration


def ration_name(source: str, provider: str) -> str:
    return f"{source}\n{provider}"          # names are printable: neither has that in it


def first_day(text: str) -> int:
    """A date as days since 1970. Raises ValueError."""
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        return (datetime.date.fromisoformat(text) - EPOCH).days
    except ValueError:
        raise ValueError(f'"{text}" is not a date such as "2026-12-01"') from None


def unknown_names(
    plans: Mapping[str, WarmupOptions], sources: Iterable[str], providers: Iterable[str]
) -> Iterator[tuple[Sequence[str | int], str]]:
    """Key below [warmup] and what is wrong: sources and providers that are not there, sources in two plans."""
    known_sources, known_providers = set(sources), set(providers)
    seen: dict[str, str] = {}
    for name, plan in plans.items():
        for index, source in enumerate(plan.sources):
            if source not in known_sources:
                yield (name, "sources", index), f"there is no [source.{source}]"
            if source in seen:
                yield (name, "sources", index), f"{source} is in [warmup.{seen[source]}] already"
            seen[source] = name
        for provider in plan.providers:
            if provider not in known_providers:
                yield (name, "providers", provider), f"there is no [shaping.provider.{provider}]"
