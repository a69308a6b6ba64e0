"""What an importer has to say of a file: what it changed, what it left out, what it guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Remark:
    """One line: where it is (a file, a section and a key, each perhaps empty), and what."""

    origin: str
    section: str
    key: str
    text: str

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.section and f"[{self.section}]", self.key)))
        return ": ".join(filter(None, (self.origin, place, self.text)))


@dataclass
class Report:
    """Remarks of three kinds.

    Attributes:
        changes: the net or its training is not what the files say.
        ignored_keys: keys and sections that mean nothing.
        notes: what was done with things that can be said in other ways, and what was assumed.
    """

    changes: list[Remark] = field(default_factory=list)
    ignored_keys: list[Remark] = field(default_factory=list)
    notes: list[Remark] = field(default_factory=list)

    def changed(self, origin: str, section: str, key: str, text: str) -> None:
        """Something that could not be carried over."""
        self.changes.append(Remark(origin, section, key, text))

    def ignored(self, origin: str, section: str, key: str, text: str) -> None:
        """A key or a section that means nothing."""
        self.ignored_keys.append(Remark(origin, section, key, text))

    def noted(self, origin: str, section: str, key: str, text: str) -> None:
        """Something worth knowing."""
        self.notes.append(Remark(origin, section, key, text))

    def text(self, facts: Sequence[str] = ()) -> str:
        """All of it, as lines.

        Args:
            facts: lines to begin with.
        """
        lines = list(facts)
        for title, remarks in (
            ("Not carried over: these change the net or its training", self.changes),
            ("Ignored", self.ignored_keys),
            ("Notes", self.notes),
        ):
            if remarks:
                lines += ["", f"{title}:", *(f"  {remark}" for remark in dict.fromkeys(remarks))]
        if not self.changes:
            lines += ["", "Everything that the files say of the net and its training is in it."]
        return "\n".join(lines).strip() + "\n"
