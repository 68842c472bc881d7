"""Limits of clients' networks and of the machine, as connections and verbs meet them."""

from angarium.inbound.judgement import Peer

def is_exempt(client: Peer) -> bool:
    """Whether the client is in one of admission.exempt. Connections only, TypeError otherwise."""
