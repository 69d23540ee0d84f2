"""What can go wrong with the warehouse, each told in one sentence. Nothing else."""

from dataclasses import dataclass


class WarehouseError(Exception):
    """The warehouse can't be opened, written, published or read."""


@dataclass
class ContractViolationError(WarehouseError):
    """A frame that breaks its table's contract; nothing of it was stored."""

    table: str
    rule: str
    violations: int
    examples: str
    """Up to five offending rows, as text."""

    def __str__(self) -> str:
        shown = f"\n{self.examples}" if self.examples else ""
        return (
            f"refused to write {self.table}: {self.violations} row(s) break the rule "
            f"'{self.rule}'; the stored rows stay as they were.{shown}"
        )


class WarehouseInUseError(WarehouseError):
    """Somebody else has had the file open for longer than was to be waited."""


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says, or its name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]
