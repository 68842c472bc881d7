"""Drives a target of this folder with libFuzzer, which goes on with what reached new branches of the compiled session.

    tools/fuzz-sessions [SECONDS]

builds what this needs and runs it: `python -m fuzz.coverage session|client OPTION... CORPUS...`, with the options of
libFuzzer, in the directory where findings shall be left.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["angarium.sasl", "angarium.inbound.claims"]):
    from fuzz import client_target, session_target

TARGETS = {"session": session_target, "client": client_target}


def write_dictionary(words: list[bytes]) -> str:
    """The words of a target as libFuzzer reads them; it takes none over 64 octets."""
    path = Path("words.dict")
    entries = ["".join(f"\\x{octet:02x}" for octet in word) for word in words if len(word) <= 64]
    path.write_text("".join(f'"{entry}"\n' for entry in entries))
    return f"-dict={path}"


def main() -> None:
    target = TARGETS[sys.argv[1]]
    # A merge is done in a process of its own, which libFuzzer starts by a shell from this name.
    itself = f"{sys.executable} -m fuzz.coverage {sys.argv[1]}"
    atheris.Setup([itself, write_dictionary(target.WORDS), *sys.argv[2:]], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
