"""Every limit that mail of one kind from one source is under, with the line that sets it: [shaping] and the warm-up of
the source. What [shaping] alone comes to is explain_shaping.py's. Also the lines of routes and pools, by their places.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from angarium.config.explain_shaping import explain_shaping
from angarium.config.files import KeyPath, Place, Tree
from angarium.config.schema import Config
from angarium.model.plan import Site
from angarium.queue.adjustments import EVERYBODY
from angarium.queue.in_force import InForce, spoken_kind


class LimitLine(msgspec.Struct):
    """A key in force. key: of [shaping] as it is, "tenant.message_rate", "all_sites.KEY" (of the source), "warmup", or
    "automation.KEY": what automation leaves `whose` mail for now.

    value  as the file writes it. file, line, set_by: where that is; None: nowhere, it is built in. Of automation they
           are its rule; of a suspension that comes back set_by is the order, in no file.
    use    what of it is used now; "" where nothing is counted.
    """

    key: str
    value: str
    file: str | None = None
    line: int | None = None
    set_by: str | None = None
    note: str = ""
    use: str = ""
    whose: str = ""

    @property
    def place(self) -> str:
        """"angarium.toml:12 shaping.default.connections", or "built in"."""
        if self.file is None:
            return self.set_by or "built in"
        return f"{self.file}:{self.line} {self.set_by}"


class RunningLines:
    """The configuration by which the workers work, and where its keys were written. For people only."""

    def __init__(self, config: Config, tree: Tree) -> None:
        self.replace(config, tree)

    def replace(self, config: Config, tree: Tree) -> None:
        """A reload was applied."""
        self._config, self._tree = config, tree

    def limits(self, site: Site, domain: str, *, source: str, tenant: str, provider: str) -> list[LimitLine]:
        """provider: whose mail it is, "" for nobody's that is known."""
        return limit_lines(
            self._config, self._tree, site, domain, source=source, tenant=tenant, provider=provider
        )

    def of_automation(self, key: str, value: str, whose: str, by: Sequence[InForce]) -> LimitLine:
        """A limit that automation sets for a time.

        whose  as adjustments.Restraint, or EVERYBODY. by: what of it does, the first the most recent.
        """
        names = ", ".join(each.name for each in by)
        place = self._tree.place(("automation", "rule", by[0].rule)) if by and by[0].rule else None
        note = "holds in the place of the limit below" if whose == EVERYBODY else (
            f"counted for {whose} alone, besides what is counted for all"
        )
        line = _line(f"automation.{key}", value, place, f"{note}; {names}" if place is not None else note)
        if place is None and by:
            line.set_by = ", ".join(f"{spoken_kind(each.kind)} {each.name}" for each in by)
        line.whose = whose
        return line

    def place_of(self, what: str, key: int | str) -> str:
        """Of a "route" by its place in Config.all_routes(), of an "egress" by its own, of a "pool" by its name; ""
        where no file says anything."""
        place = self._route(key) if what == "route" and isinstance(key, int) else self._tree.place((what, key))
        return "" if place is None else str(place)

    def _route(self, place: int) -> Place | None:
        own = sum(1 for each in self._config.domain.values() if each.next_hop)
        if place >= own:
            return self._tree.place(("route", place - own))
        return self._tree.place(("domain", self._config.all_routes()[place].domain, "next_hop"))


def limit_lines(
    config: Config, tree: Tree, site: Site, domain: str, *, source: str, tenant: str, provider: str
) -> list[LimitLine]:
    """provider: whose mail it is, "" for nobody's that is known."""
    lines = []
    for each in explain_shaping(config, tree, site, domain, source=source, tenant=tenant):
        if not site.hosts and (each.besides == "all_sites" or (each.besides and each.key != "message_rate")):
            continue                # it leaves this machine by no network
        key = f"{each.besides}.{each.key}" if each.besides else each.key
        lines.append(_line(key, each.value, each.place, each.note))
    if site.hosts:
        lines += _of_warmup(config, tree, source, provider)
    return lines


def _of_warmup(config: Config, tree: Tree, source: str, provider: str) -> list[LimitLine]:
    for name, plan in config.warmup.items():
        if source in plan.sources:
            path: KeyPath = ("warmup", name, "schedule")
            if provider in plan.providers:
                path = ("warmup", name, "providers", provider)
            schedule = plan.providers.get(provider, plan.schedule)
            return [_line("warmup", f"{len(schedule)} days from {plan.begins}", tree.place(path), "")]
    return []


def _line(key: str, value: str, place: Place | None, note: str) -> LimitLine:
    if place is None:
        return LimitLine(key, value, note=note)
    return LimitLine(key, value, str(place.file), place.line, place.key, note)
