"""What a policy service is told: the attributes of Postfix's SMTPD_POLICY_README, in its order and its spelling."""

from __future__ import annotations

from typing import Final

from angarium.inbound.judgement import Peer
from angarium.inbound.policy_state import Transaction, text_of
from angarium.mime.xtext import encode_xtext
from angarium.policy.options import State

UNKNOWN: Final = "unknown"
LOCAL: Final = "127.0.0.1"      # a client of a unix socket, and the end of ours that it came to


def attributes_of(state: State, client: Peer, transaction: Transaction | None) -> dict[str, str]:
    """What every question holds; what we do not know is empty, or as with Postfix "unknown" or "0".

    A service is not asked at ETRN, and has no context: both are empty.
    """
    ends = client.ends()
    no_port = UNKNOWN if client.host else "0"
    return {
        "protocol_state": state.upper(),
        "protocol_name": client.protocol,
        "client_address": client.host or LOCAL,
        "client_name": client.name or UNKNOWN,
        "client_port": str(ends.client_port or no_port),
        "reverse_client_name": client.reverse_name or client.name or UNKNOWN,
        "server_address": ends.server_address or (UNKNOWN if client.host else LOCAL),
        "server_port": str(ends.server_port or no_port),
        "helo_name": client.helo.decode("ascii", "replace"),
        "sender": text_of(transaction.reverse_path) if transaction is not None else "",
        "recipient": "",
        "recipient_count": "0",
        "queue_id": "",
        "instance": transaction.instance if transaction is not None else "",
        "size": str(transaction.octets) if transaction is not None else "0",
        "etrn_domain": "",
        "stress": "yes" if client.is_load_high else "",
        "sasl_method": client.mechanism,
        "sasl_username": client.identity or "",
        "sasl_sender": "",
        **_of_certificate(client),
        **_of_encryption(client),
        "policy_context": "",
    }


def _of_encryption(client: Peer) -> dict[str, str]:
    tls = client.tls
    return {
        "encryption_protocol": "" if tls is None else tls.version,
        "encryption_cipher": "" if tls is None else tls.cipher_name,
        "encryption_keysize": "0" if tls is None else str(tls.cipher_bits),
    }


def _of_certificate(client: Peer) -> dict[str, str]:
    """Names only when its authority vouches for them: anybody can write any name. A fingerprint is whose it is. The
    certificate of a peer that speaks for somebody else is not that client's."""
    subject = issuer = b""
    certificate = key = None
    if client.tls is not None and client.introduced is None:
        certificate, key = client.tls.fingerprint, client.tls.peer_key_fingerprint()
        if client.tls.is_verified:
            subject, issuer = client.tls.peer_common_name(), client.tls.peer_issuer_name()
    return {
        "ccert_subject": encode_xtext(subject).decode("ascii"),
        "ccert_issuer": encode_xtext(issuer).decode("ascii"),
        "ccert_fingerprint": "" if certificate is None else certificate.hex(":").upper(),
        "ccert_pubkey_fingerprint": "" if key is None else key.hex(":").upper(),
    }
