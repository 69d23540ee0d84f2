"""The first settings: what a person chooses, and the two files that say so.

Belongs here: which choices there are, and what is in the files. Does not belong here: asking a
person (`asking`), how files are written (`settings_files`), what choices cost (`budgeting`).
"""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from crypto_assets.operations import home as homes
from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.settings_files import FileDraft, names_of, read, with_names
from crypto_assets.settings import (
    DOTENV_NAME,
    FILE_NAME,
    Settings,
    file_tree,
    in_force,
    names_that_win,
    validated,
)

KEY_NAME = "CRYPTO_ASSETS_COINGECKO__API_KEY"
URLS_NAME = "CRYPTO_ASSETS_ALERTS__URLS"
DEFAULT_HOME = Path("data")
UNCHECKED = "# Not checked with CoinGecko yet: 'crypto-assets doctor' does that.\n"
_HEAD = (
    "# Written by 'crypto-assets init'; change it by hand or run that again.\n"
    f"# Keys and alert URLs are secrets and belong in {DOTENV_NAME}.\n"
)
_COMMENTS = {
    "home": "Folder of the warehouse and Dagster's history.",
    "coingecko": "keyless, demo, basic, analyst, lite or enterprise.",
    "universe": "tracked: how many coins by market cap; always: tracked whatever their rank;\n"
    "# headline: with hourly candles on free plans. Coins go by CoinGecko's ids.",
    "history": "First day of the warehouse; fixed once data is stored.",
}


@dataclass(frozen=True)
class Choices:
    """What `init` asks for."""

    home: Path
    plan: str
    api_key: SecretStr | None
    tracked: int
    always: tuple[str, ...]
    headline: tuple[str, ...]
    start: date
    alert_urls: tuple[SecretStr, ...]

    @classmethod
    def of(cls, home: Path, settings: Settings) -> "Choices":
        """Return what settings say."""
        return cls(
            home=home,
            plan=settings.coingecko.plan,
            api_key=settings.coingecko.api_key,
            tracked=settings.universe.tracked,
            always=tuple(settings.universe.always),
            headline=tuple(settings.universe.headline),
            start=settings.history.start,
            alert_urls=tuple(settings.alerts.urls),
        )

    @property
    def tree(self) -> dict[str, Any]:
        """The choices as settings, but for the secrets."""
        own_home = {} if self.home == DEFAULT_HOME else {"home": str(self.home)}
        return {
            **own_home,
            "coingecko": {"plan": self.plan},
            "universe": {
                "tracked": self.tracked,
                "always": list(self.always),
                "headline": list(self.headline),
            },
            "history": {"start": self.start},
        }

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets by their name in the environment."""
        found = {}
        if self.api_key and self.plan != "keyless":
            found[KEY_NAME] = self.api_key.get_secret_value()
        if self.alert_urls:
            found[URLS_NAME] = " ".join(url.get_secret_value() for url in self.alert_urls)
        return found


@dataclass(frozen=True)
class Draft:
    """Both files, and the settings that will be in force."""

    files: tuple[FileDraft, ...]
    settings: Settings
    replaced: tuple[str, ...]
    """What is there and would change, a line each; secrets masked."""

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        return any(file.is_changed for file in self.files)


def known(folder: Path, home: Path | None) -> Choices:
    """Return what is chosen already: by the settings file, its secrets, or the defaults.

    Raises `SettingsError` where the file or `.env` is broken, `OperationError` where the home
    can't be used or has settings of its own.
    """
    tree = file_tree(folder / FILE_NAME)
    names = names_of(read(folder / DOTENV_NAME) or "") | dict(os.environ)
    named = names.get("CRYPTO_ASSETS_HOME") or tree.get("home") or DEFAULT_HOME
    chosen_home = home or Path(str(named))
    refuse_home(folder, chosen_home)
    # A key without its plan, or a plan without its key, is what is about to be mended.
    plan = str(_section(tree, "coingecko").get("plan") or "keyless")
    key = names.get(KEY_NAME) or _section(tree, "coingecko").get("api_key")
    of_file = {
        "universe": _section(tree, "universe"),
        "history": _section(tree, "history"),
        "alerts": {"urls": names.get(URLS_NAME) or _section(tree, "alerts").get("urls") or []},
        "coingecko": {"plan": plan if key else "keyless", "api_key": key or None},
    }
    return replace(Choices.of(chosen_home, validated(of_file)), plan=plan)


def refuse_home(folder: Path, home: Path) -> None:
    """Raise `OperationError` where a home can't be made, or would not read the file here."""
    absolute = folder / home
    homes.refuse_impossible(absolute)
    own = absolute / FILE_NAME
    if own.exists() and own.resolve() != (folder / FILE_NAME).resolve():
        raise OperationError(
            f"the home {home} has settings of its own, which win over a file here: change "
            f"{own}, or choose another home with --home"
        )


def draft(folder: Path, choices: Choices, *, is_checked: bool) -> Draft:
    """Return the files of the choices, all checked but for the key.

    Raises `SettingsError`, or `OperationError` where they would not say what was chosen.
    """
    if choices.plan != "keyless" and not choices.api_key:
        raise OperationError(
            f"the plan '{choices.plan}' needs a key: set {KEY_NAME}, or choose --plan keyless"
        )
    yaml_path, dotenv_path = folder / FILE_NAME, folder / DOTENV_NAME
    before, dotenv_before = read(yaml_path), read(dotenv_path)
    tree = _without_secrets(_merged(file_tree(yaml_path), choices.tree))
    if choices.home == DEFAULT_HOME:
        tree.pop("home", None)
    after = _HEAD + ("" if is_checked else UNCHECKED) + _sections(tree)
    dotenv_after = with_names(dotenv_before or "", choices.secrets)
    names = names_of(dotenv_after)
    absolute = {"home": str(folder / choices.home)}
    settings = in_force(tree | absolute, names)
    _refuse_others_words(folder, choices, names)
    # The secrets first: a key without its plan harms nobody, should we be killed in between.
    files = (
        FileDraft(dotenv_path, dotenv_before, dotenv_after, is_secret=True),
        FileDraft(yaml_path, before, after, is_secret=False),
    )
    replaced = (*_changed_lines(before, after), *_changed_names(dotenv_before, choices.secrets))
    return Draft(files, settings, replaced)


def _refuse_others_words(folder: Path, choices: Choices, names: Mapping[str, str | None]) -> None:
    """Raise `OperationError` where the environment or `.env` would overrule what was chosen."""
    secrets = {
        "coingecko": {"plan": choices.plan, "api_key": choices.api_key},
        "alerts": {"urls": list(choices.alert_urls)},
    }
    chosen = _merged(choices.tree, secrets) | {"home": str(choices.home)}
    others = names_that_win(chosen, names)
    if choices.plan == "keyless" and KEY_NAME in others:
        others.remove(KEY_NAME)  # kept where it is, and of no effect
    if "CRYPTO_ASSETS_HOME" in others:
        meant = os.environ.get("CRYPTO_ASSETS_HOME") or names.get("CRYPTO_ASSETS_HOME") or ""
        if (folder / meant).resolve() == (folder / choices.home).resolve():
            others.remove("CRYPTO_ASSETS_HOME")
    if others:
        raise OperationError(
            f"{', '.join(others)} in the environment or {DOTENV_NAME} would win over this choice: "
            "remove it there, or choose the same here"
        )


def _sections(tree: Mapping[str, Any]) -> str:
    ordered = {name: tree[name] for name in _COMMENTS if name in tree} | dict(tree)
    text = ""
    for name, value in ordered.items():
        comment = f"# {_COMMENTS[name]}\n" if name in _COMMENTS else ""
        dumped = yaml.safe_dump(
            {name: value}, sort_keys=False, allow_unicode=True, width=float("inf")
        )
        text += f"\n{comment}{dumped}"
    return text


def _changed_lines(before: str | None, after: str) -> list[str]:
    if before is None or before == after:
        return []
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), FILE_NAME, FILE_NAME, n=0, lineterm=""
    )
    secret = _secrets_within(before)
    return [_masked(line, secret) for line in list(lines)[2:] if not line.startswith("@@")]


def _changed_names(before: str | None, secrets: Mapping[str, str]) -> list[str]:
    held = names_of(before or "")
    return [
        f"{name} in {DOTENV_NAME}: *** becomes another ***"
        for name, value in secrets.items()
        if held.get(name) not in (None, "", value)
    ]


def _secrets_within(text: str) -> list[str]:
    """The secrets a settings file holds, though they do not belong there."""
    tree = yaml.safe_load(text) or {}
    urls = _section(tree, "alerts").get("urls") or []
    found = [
        _section(tree, "coingecko").get("api_key"),
        *(urls if isinstance(urls, list) else [urls]),
    ]
    return [str(secret) for secret in found if secret]


def _masked(line: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        for form in {secret, json.dumps(secret)[1:-1]}:
            line = line.replace(form, "***")
    return line


def _without_secrets(tree: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(tree)
    for section, secret in (("coingecko", "api_key"), ("alerts", "urls")):
        if isinstance(kept.get(section), Mapping):
            left = {name: value for name, value in kept[section].items() if name != secret}
            kept[section] = left
            if not left:
                del kept[section]
    return kept


def _section(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tree.get(name)
    return found if isinstance(found, Mapping) else {}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return one tree of sections over another."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[name] = {**under, **value} if both else value  # type: ignore[dict-item]
    return merged
