"""What holds for mail of one kind, and which line of which file says so. Asked by commands; the relay does without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from angarium.config.files import Place, Tree
from angarium.config.schema import Config
from angarium.model.plan import Site
from angarium.model.units import Duration
from angarium.queue.shaping import KEYS, Limits, Shaping, Table, shared_scope
from angarium.queue.shaping_options import UNSET, AllSites

OF_ROUTE = "said by the route or the message, before all tables"
_SCOPE_OF = {"connections": "connection_scope", "connection_rate": "dial_scope", "message_rate": "rate_scope"}


class ShapingLine(NamedTuple):
    """One key: the value in force as the file writes it, where it was set (None: nowhere, it is built in), and what
    else there is to know. besides: "tenant" or "all_sites" for what holds besides the limits of the site."""

    key: str
    value: str
    place: Place | None
    note: str = ""
    besides: str = ""


def explain_shaping(
    config: Config, tree: Tree, site: Site, domain: str, *, source: str = "", tenant: str = ""
) -> list[ShapingLine]:
    """All keys in force for mail to `domain` at `site` from `source` and of `tenant` ("": of none).

    What holds besides the limits of the site comes first: those of a tenant, and what a source may do in all.
    """
    shaping = Shaping(config.shaping)
    kind = shaping.kind_of(site, domain.encode(), tenant.encode())
    limits = shaping.limits(site, source, kind)
    lines = []
    for key in AllSites.__struct_fields__:
        if (table := limits.set_by.get(f"tenant.{key}")) is not None:
            note = f"{_counted(limits.tenant_scope)}, besides what is counted for the site"
            line = _line(tree, key, getattr(limits.tenant, key), table, note)
            lines.append(line._replace(besides="tenant"))
    if limits.all_sites is not None:
        lines += _of_all_sites(tree, source, limits.all_sites)
    for key in KEYS:
        value = getattr(limits.options, key)
        if key == "tls" and site.tls:
            lines.append(ShapingLine(key, _shown(site.tls), None, OF_ROUTE))
            continue
        if key == "login" and site.login:
            lines.append(ShapingLine(key, _shown(site.login), None, OF_ROUTE))
            continue
        lines.append(_line(tree, key, value, limits.set_by.get(key), _note(limits, key, value)))
    return lines


def _of_all_sites(tree: Tree, source: str, limits: AllSites) -> Iterator[ShapingLine]:
    path = ("shaping", "source", source, "all_sites")
    note = f"{_counted(shared_scope('source', source))}, besides what is counted for each site"
    for key in limits.__struct_fields__:
        if getattr(limits, key) is not None:
            raw = _raw(tree.tables, (*path, key))
            yield ShapingLine(key, _shown(raw), tree.place((*path, key)) or tree.place(path), note, "all_sites")


def _note(limits: Limits, key: str, value: object) -> str:
    if key == "retry" and value is None:
        return "as queue.default.retry says"
    if key not in _SCOPE_OF or value is None:
        return ""
    return _counted(getattr(limits, _SCOPE_OF[key]))


def _counted(scope: str) -> str:
    scope = scope.replace("\t", " ")
    if scope.startswith("\0"):
        return f"counted for {scope[1:].strip()}, all sites together"
    return f"counted for {scope.strip()} at each site" if scope else "counted for each site"


def _line(tree: Tree, key: str, value: object, table: Table | None, note: str) -> ShapingLine:
    path = (*(table.path if table is not None else ("shaping", "default")), key)
    place = tree.place(path)
    if place is None:
        return ShapingLine(key, _shown(value), None, note)
    raw = _raw(tree.tables, path)
    if raw == UNSET:
        return ShapingLine(key, _shown(value), place, "; ".join(filter(None, ("unset", note))))
    return ShapingLine(key, _shown(raw), place, note)


def _raw(tables: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tables = tables[part]
    return tables


def _shown(value: object) -> str:
    """As TOML writes it, in one line; "none" for what is not there."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Duration):
        return f'"{value}"'
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_shown(each)}" for key, each in value.items()) + " }"
    return str(value)
