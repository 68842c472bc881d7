"""How we behave towards other hosts where no RFC decides. Not in the configuration: judged once."""

from __future__ import annotations

import msgspec


class OutboundOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """broken_host_s        a host that could not be reached is tried last for this long.
    without_tls_s        a host with which TLS failed is spoken to in clear for this long, where the policy allows it.
    site_pause_first_s   after a dial to all hosts of a site failed, the next one comes this much later,
    site_pause_max_s     doubling up to this.
    addresses_per_dial   tried before a dial counts as failed (RFC 5321 §5.1: "at least two").
    window_first         connections that a worker dials to a site before the first success. With ten thousand
                         sites at once, what waits for a greeting is what takes memory.
    source_retry_first_s  an egress source that cannot be used is tried again after this long,
    source_retry_max_s    doubling up to this.
    """

    broken_host_s: float = 180.0
    without_tls_s: float = 600.0
    site_pause_first_s: float = 5.0
    site_pause_max_s: float = 300.0
    addresses_per_dial: int = 10
    window_first: int = 4
    source_retry_first_s: float = 10.0
    source_retry_max_s: float = 120.0
