"""The list of coins over time: who is new, who vanished, who was renamed."""

from datetime import datetime

import pandas as pd

COLUMNS = [
    "coin_id",
    "symbol",
    "name",
    "platforms",
    "is_active",
    "first_seen_at",
    "last_seen_at",
    "renamed_to",
]


def merge_coin_list(
    stored: pd.DataFrame, listed: pd.DataFrame, observed_at: datetime
) -> pd.DataFrame:
    """Merge a fresh listing into the stored list, which never shrinks.

    `stored` has the columns of `coin_list` (or is empty), `listed` has coin_id, symbol, name,
    platforms and is_active, one row a coin. A coin that is no longer listed stays, inactive, as it
    was last seen. It is taken for renamed when exactly one coin that is new shares its symbol and
    name. Returns one row a coin, sorted by coin_id.
    """
    seen_at = pd.Timestamp(observed_at)
    listed = listed.set_index("coin_id")
    stored = stored.reindex(columns=COLUMNS).set_index("coin_id")
    first_seen = pd.to_datetime(stored["first_seen_at"]).reindex(listed.index).fillna(seen_at)
    current = listed.assign(
        first_seen_at=first_seen, last_seen_at=seen_at, renamed_to=pd.Series(dtype="object")
    )
    vanished = stored[~stored.index.isin(listed.index)].assign(is_active=False)
    new = listed[~listed.index.isin(stored.index)]
    vanished["renamed_to"] = (
        vanished["renamed_to"].astype("object").fillna(_successors(vanished, new))
    )
    parts = [part for part in (current, vanished) if len(part)]
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    merged = pd.concat([part.astype({"renamed_to": "object"}) for part in parts])
    return merged.rename_axis("coin_id").reset_index()[COLUMNS].sort_values("coin_id")


def _successors(vanished: pd.DataFrame, new: pd.DataFrame) -> "pd.Series[str]":
    """Return the one new id with the symbol and name of each vanished id, where there is one."""
    identity = ["symbol", "name"]
    before, after = (
        frame.reset_index()[["coin_id", *identity]]
        .astype("object")
        .drop_duplicates(identity, keep=False)
        for frame in (vanished, new)
    )
    matched = before.merge(after, on=identity, suffixes=("", "_new"))
    return pd.Series(matched["coin_id_new"].to_numpy(), index=matched["coin_id"], dtype="object")
