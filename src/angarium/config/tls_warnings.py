"""What [shaping] says of TLS that may not be meant: `angarium check` tells it. No error: tables go by their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from angarium.config.files import Tree, spell
from angarium.model.plan import TlsName
from angarium.queue.shaping_options import Overrides, ShapingOptions, ShapingTables

# From the weakest on, which is not how the type has them.
_STRENGTH: Final[dict[TlsName, int]] = {"none": 0, "opportunistic": 1, "encrypt": 2, "required": 3}
assert set(_STRENGTH) == set(get_args(TlsName))


def tls_warnings(tables: ShapingTables, tree: Tree) -> Iterator[str]:
    """One for each source's or tenant's table whose `tls` is weaker than that of a domain's, before which it holds."""
    domains = [(name, table) for name, table in tables.domain.items() if table.has("tls")]
    for path, table in tables.named():
        if path[1] not in ("source", "tenant") or not table.has("tls"):
            continue
        weaker = [name for name, of_domain in domains if _strength(table) < _strength(of_domain)]
        if not weaker:
            continue
        name = weaker[0]
        there = spell(("shaping", "domain", name, "tls"))
        more = f", and before {len(weaker) - 1} more like it" if len(weaker) > 1 else ""
        yield (
            f'{tree.place((*path, "tls")) or spell((*path, "tls"))}: "{_tls(table)}" holds before {there}, '
            f'"{_tls(tables.domain[name])}"{more}: a table of a {path[1]} is narrower than that of a domain'
        )


def _tls(table: Overrides) -> TlsName:
    return table.tls or ShapingOptions().tls        # without a value it is unset


def _strength(table: Overrides) -> int:
    return _STRENGTH[_tls(table)]
