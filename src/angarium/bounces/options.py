"""What the operator may set about failures: the [bounces] table."""

from __future__ import annotations

from pathlib import Path

import msgspec

from angarium.bounces.classifier import Classifier, shared_classifier
from angarium.bounces.rules import OWN_RULES, RuleError, read_file
from angarium.model.errors import AngariumError


class BouncesOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """rules        files of [[rule]], absolute paths, asked in this order before those that come with the program.
    secret_file  what traces (reports.verp) and hashes (suppression) are made with; "": one in the spool directory.
    """

    rules: list[str] = []
    secret_file: str = ""

    def __post_init__(self) -> None:
        for index, path in enumerate(self.rules):
            if not path.startswith("/") or not path.isprintable():
                raise ValueError(f"rules[{index}]: {path!r} is not an absolute path")
        if self.secret_file and (not self.secret_file.startswith("/") or not self.secret_file.isprintable()):
            raise ValueError(f"secret_file: {self.secret_file!r} is not an absolute path")


class RulesRefused(AngariumError):
    """index: of BouncesOptions.rules."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def make_classifier(options: BouncesOptions) -> Classifier:
    """Reads the rule files. Raises RulesRefused of the first that cannot be used."""
    if not options.rules:
        return shared_classifier()      # read by the supervisor, and inherited by its workers
    rules = []
    for index, path in enumerate(options.rules):
        try:
            rules += read_file(Path(path))
        except RuleError as error:
            raise RulesRefused(index, str(error)) from None
    for own in OWN_RULES:
        rules += read_file(own)
    return Classifier(rules)
