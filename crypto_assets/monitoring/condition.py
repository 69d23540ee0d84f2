"""What a thing that is wrong consists of. No figures, no judgement."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """Something that is wrong for as long as it lasts. An ERROR means: do not trust it now."""

    key: str
    """What names the same condition again."""
    title: str
    detail: str
    advice: str
    link: str
    is_error: bool = True
    of_check: bool = False
    is_suspended: bool = False
    """It may be about to end by itself: neither its beginning nor its end is told for now."""
