"""Collects the rows of one file that cannot be used: how many, where, why. Knows no column and no format."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainer.errors import DataError

SHOWN_PER_REASON = 3
"""How many rows of each kind a message lists with their lines; the rest is counted."""

NOT_UTF8 = "not UTF-8 (if many: save the file as UTF-8): skipped"
"""The rule for rows with bytes that are no text."""


@dataclass(frozen=True, slots=True)
class BrokenKind:
    """Rows of one file that share a reason.

    Attributes:
        rule: What the reader does with such rows, for example "rating off the scale 1 to 5 in steps of 1: skipped".
        examples: Line and text of the first of them.
        count: How many there are.
        harmless: True for rows that are set aside by rule and say nothing against the file (a movie rated again).
    """

    rule: str
    examples: tuple[tuple[int, str], ...]
    count: int
    harmless: bool


@dataclass(slots=True)
class BrokenRows:
    """The unusable rows of one file, in the order in which the checks ran.

    Attributes:
        file: How messages name the file.
        unit: What a position in the file is called: "line", or "row" where the format has no lines.
        kinds: The reasons met.
    """

    file: str
    unit: str = "line"
    kinds: list[BrokenKind] = field(default_factory=list)

    def add(self, rule: str, lines: Sequence[int], texts: Sequence[str], count: int, *, harmless: bool = False) -> None:
        """Records `count` rows that fell under one rule, with lines and texts of the first of them."""
        if count:
            examples = tuple(zip((int(line) for line in lines), texts, strict=False))[:SHOWN_PER_REASON]
            self.kinds.append(BrokenKind(rule, examples, count, harmless))

    @property
    def count(self) -> int:
        """How many rows are broken; those set aside by rule do not count."""
        return sum(kind.count for kind in self.kinds if not kind.harmless)

    def describe(self) -> list[str]:
        """Says each kind in one sentence: file, count, rule, first lines with what stood there."""
        return [f"{self.file}: {self._describe(kind)}" for kind in self.kinds]

    def refuse_if_too_many(self, num_rows: int, max_share: float) -> None:
        """Refuses the file when more than `max_share` of its `num_rows` rows are broken.

        Raises:
            DataError: It is so; the message lists every kind with its first lines.
        """
        if self.count <= max_share * num_rows:
            return
        kinds = "\n".join(f"  {self._describe(kind)}" for kind in self.kinds if not kind.harmless)
        raise DataError(
            f"{self.file}: {self.count:,} of {num_rows:,} rows are broken, more than {max_share:.4g} of them "
            f"(--max-broken sets the limit):\n{kinds}"
        )

    def _describe(self, kind: BrokenKind) -> str:
        places = "; ".join(f"{self.unit} {line:,}: {text}" for line, text in kind.examples)
        more = f"; and {kind.count - len(kind.examples):,} more" if kind.count > len(kind.examples) else ""
        return f"{kind.count:,} x {kind.rule} ({places}{more})"
