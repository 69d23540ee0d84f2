"""What a rule is. The rules themselves are in the modules beside."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Rule:
    """One check: the table it is about and the query of offending rows."""

    table: str
    name: str
    description: str
    offenders: str
    is_error: bool = True
    """ERROR withholds publication; otherwise it warns."""
    settles: bool = False
    """Calculated rows that are stale break it too, until a sensor calculates them again."""

    def parameters(self, days: tuple[date, date]) -> dict[str, date]:
        """Return what the query binds for the days [first, last]."""
        return {"first": days[0], "last": days[1]} if "$first" in self.offenders else {}
