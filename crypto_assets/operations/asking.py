"""`init`: asks a person, or takes what was given, checks it, and writes the settings.

Belongs here: the conversation. Does not belong here: what is asked for and how it is stored
(`choosing`).
"""

import difflib
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from crypto_assets.monitoring.channels import channels
from crypto_assets.operations import choosing, settings_files
from crypto_assets.operations.budgeting import Budget, budget
from crypto_assets.operations.choosing import Choices, Draft
from crypto_assets.operations.doctor import ask_coingecko, listed_coins
from crypto_assets.operations.errors import OperationError
from crypto_assets.periods import DAY
from crypto_assets.providers.errors import PermanentError, ProviderError
from crypto_assets.providers.plans import PLANS
from crypto_assets.settings import DOTENV_NAME, FILE_NAME, Settings, SettingsError, validated

LIVE_PLANS = tuple(name for name in PLANS if name != "unlimited")
NONE = "-"
_SECTIONS = {
    **dict.fromkeys(("tracked", "always", "headline"), "universe"),
    "start": "history",
    "alert_urls": "alerts",
}
_NEEDED = {
    "tracked": "a whole number from 1 to 5,000 is needed",
    "always": f"coins by their ids are needed, as in 'bitcoin, ethereum', or {NONE} for none",
    "headline": "at least one coin is needed, as in 'bitcoin, ethereum'",
    "start": "a day from 2013-04-28 to today is needed, as in 2026-01-31",
}
"""What each answer has to be, in words for whoever types it."""


@dataclass(frozen=True)
class Manner:
    """How to go about it: whether to ask, to write what is doubtful, to replace what is there."""

    asks: bool
    anyway: bool
    overwrites: bool


@dataclass(frozen=True)
class _Answer:
    """What the provider said of plan and key; `is_accepted` is None where it could not be asked."""

    is_accepted: bool | None
    told: str


def initialize(
    folder: Path,
    home: Path | None,
    given: Mapping[str, Any],
    manner: Manner,
    show_budget: Callable[[Budget], None],
) -> None:
    """Choose, check and write the settings of `folder`.

    `given` are fields of `Choices` as typed. Raises `SettingsError` and `OperationError`.
    """
    choices = _with(choosing.known(folder, home), given)
    if manner.asks:
        click.echo("Enter takes what stands in brackets, Ctrl-C ends this and changes nothing.")
        choices, answer = _ask(folder, choices, manner)
    else:
        _refuse_unknown(choices.alert_urls)
        # First of all whether it can be used, then whether the provider thinks so too.
        choosing.draft(folder, choices, is_checked=False)
        answer = _asked(folder, choices)
        _note(answer, manner)
        if answer.is_accepted:
            _refuse_unlisted(folder, choices, manner)
    drafted = choosing.draft(folder, choices, is_checked=answer.is_accepted is True)
    if not manner.asks:
        _agree(drafted, manner)
    _judge_budget(drafted.settings, manner, show_budget)
    if not drafted.is_changed:
        click.echo(f"{FILE_NAME} says so already: nothing was changed.")
        return
    if manner.asks:
        _agree(drafted, manner)
    settings_files.write(drafted.files)
    _tell_next(folder, drafted, answer)


# --- asking


def _ask(folder: Path, choices: Choices, manner: Manner) -> tuple[Choices, _Answer]:
    choices = replace(choices, home=_asked_home(folder, choices.home))
    choices, answer = _asked_plan(folder, choices, manner)
    click.echo("Coins by CoinGecko's ids, which are in its addresses: coingecko.com/en/coins/ID.")
    tracked = _prompt("Coins by market cap", choices.tracked, "tracked")
    choices = _asked_coins(folder, replace(choices, tracked=tracked), answer, manner)
    start = _prompt("First day of the warehouse", choices.start, "start")
    choices = replace(choices, start=start)
    return replace(choices, alert_urls=_asked_urls(choices.alert_urls)), answer


def _asked_home(folder: Path, default: Path) -> Path:
    def usable(text: str) -> Path:
        try:
            choosing.refuse_home(folder, Path(text))
        except OperationError as error:
            raise click.BadParameter(str(error)) from None
        return Path(text)

    found: Path = click.prompt("Folder of the data", str(default), value_proc=usable)
    return found


def _asked_plan(folder: Path, choices: Choices, manner: Manner) -> tuple[Choices, _Answer]:
    """Ask for plan and key until the provider takes them, or a person wants them all the same."""
    while True:
        plan = click.prompt(
            "CoinGecko plan (keyless needs no key; demo is free, too)",
            choices.plan,
            type=click.Choice(LIVE_PLANS),
        )
        choices = replace(choices, plan=plan)
        if plan != "keyless":
            choices = replace(choices, api_key=_asked_key(choices.api_key))
            if choices.api_key is None:
                click.echo("Without a key the plan is keyless; run this again once you have one.")
                choices = replace(choices, plan="keyless")
        answer = _asked(folder, choices)
        click.echo(answer.told)
        if answer.is_accepted or (answer.is_accepted is False and manner.anyway):
            return choices, answer
        if answer.is_accepted is None:
            click.confirm("Go on without this check?", default=True, abort=True)
            return choices, answer
        if not click.confirm("Choose plan and key again?", default=True):
            return choices, answer


def _asked_key(known: SecretStr | None) -> SecretStr | None:
    hint = "Enter keeps the one that is there" if known else "it does not show; Enter: none"
    text = click.prompt(f"API key ({hint})", "", hide_input=True, show_default=False).strip()
    return SecretStr(text) if text else known


def _asked_coins(folder: Path, choices: Choices, answer: _Answer, manner: Manner) -> Choices:
    """Ask for coins until the provider lists them, or a person wants them all the same."""
    listed: Collection[str] | None = None
    while True:
        choices = replace(
            choices,
            always=_prompt(f"Coins always tracked ({NONE} for none)", choices.always, "always"),
            headline=_prompt(
                "Coins with hourly candles on free plans", choices.headline, "headline"
            ),
        )
        if answer.is_accepted and listed is None:
            listed = _listed(folder, choices)
        unlisted = _unlisted(choices, listed)
        if unlisted:
            click.echo(unlisted)
        if not unlisted or manner.anyway or not click.confirm("Choose them again?", default=True):
            return choices


def _asked_urls(known: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    hint = f"Enter keeps the {len(known)} there" if known else "Enter: none"
    while True:
        text = click.prompt(
            f"Alert URLs, as apprise writes them, e.g. slack://…; they do not show ({hint})",
            "",
            hide_input=True,
            show_default=False,
        )
        if not text.strip():
            return known
        try:
            urls = tuple(validated({"alerts": {"urls": text}}).alerts.urls)
            _refuse_unknown(urls)
        except (SettingsError, OperationError) as error:
            click.echo(f"Error: {error}")
            continue
        if _tried(urls) or click.confirm("Keep them all the same?", default=False):
            return urls


def _tried(urls: tuple[SecretStr, ...]) -> bool:
    """Send a test message if that is wanted; tell whether every channel took it."""
    if not click.confirm("Send a test message there?", default=True):
        return True
    all_took = True
    for channel in channels(urls):
        took = channel.try_out()
        click.echo(f"{channel.name}: {'sent' if took else 'not sent: check URL and network'}")
        all_took = all_took and took
    return all_took


def _prompt(text: str, default: Any, field: str) -> Any:
    def checked(typed: str) -> Any:
        try:
            return _parsed(field, typed)
        except SettingsError as error:
            raise click.BadParameter(str(error)) from None

    shown = (", ".join(default) or NONE) if isinstance(default, tuple) else str(default)
    return click.prompt(text, shown, value_proc=checked)


# --- checking


def _parsed(field: str, typed: Any) -> Any:
    """Return a choice as settings hold it, from a prompt or an option. Raises `SettingsError`."""
    value = typed
    if field in ("always", "headline") and typed.strip() == NONE:
        value = []
    section, name = _SECTIONS[field], "urls" if field == "alert_urls" else field
    try:
        settings = validated({section: {name: value}})
    except SettingsError:
        if field not in _NEEDED:
            raise
        raise SettingsError(f"setting '{section}.{name}' is '{typed}': {_NEEDED[field]}") from None
    found = getattr(getattr(settings, section), name)
    return tuple(found) if isinstance(found, list) else found


def _with(choices: Choices, given: Mapping[str, Any]) -> Choices:
    """Return choices with what was given, validated."""
    changed = {name: _parsed(name, value) for name, value in given.items() if name in _SECTIONS}
    if given.get("api_key"):
        changed["api_key"] = SecretStr(given["api_key"])
    if "plan" in given:
        changed["plan"] = given["plan"]
    return replace(choices, **changed)


def _listed(folder: Path, choices: Choices) -> Collection[str] | None:
    """The coins of the provider, by one call; None where it does not tell."""
    try:
        return listed_coins(choosing.draft(folder, choices, is_checked=False).settings)
    except ProviderError as error:
        click.echo(f"the coins were not checked: {error}")
        return None


def _unlisted(choices: Choices, listed: Collection[str] | None) -> str:
    """Name the chosen coins that the provider does not list, and what may be meant."""
    named = dict.fromkeys((*choices.always, *choices.headline))
    unknown = [coin for coin in named if listed is not None and coin not in listed]
    if not unknown:
        return ""
    near = [difflib.get_close_matches(coin.lower(), listed or (), n=1) for coin in unknown]
    guesses = ", ".join(dict.fromkeys(match for matches in near for match in matches))
    hint = f"; did you mean {guesses}?" if guesses else ""
    return f"not listed by CoinGecko: {', '.join(unknown)}{hint}"


def _refuse_unlisted(folder: Path, choices: Choices, manner: Manner) -> None:
    told = _unlisted(choices, _listed(folder, choices))
    if told and not manner.anyway:
        raise OperationError(f"{told}; nothing was written (--anyway writes it all the same)")
    if told:
        click.echo(told)


def _refuse_unknown(urls: tuple[SecretStr, ...]) -> None:
    unknown = [channel.name for channel in channels(urls) if not channel.is_understood]
    if unknown:
        raise OperationError(
            f"{', '.join(unknown)} is no URL that apprise understands: its documentation shows how "
            "each service's looks"
        )


def _asked(folder: Path, choices: Choices) -> _Answer:
    """Ask the provider, by one call, what it thinks of plan and key."""
    # A draft has the environment's say, for instance where the provider is.
    settings = choosing.draft(folder, choices, is_checked=False).settings
    try:
        return _Answer(True, f"CoinGecko: {ask_coingecko(settings)}")
    except PermanentError as error:
        return _Answer(False, f"the plan '{choices.plan}' or its key was refused: {error}")
    except ProviderError as error:
        return _Answer(None, f"not checked: {error}")


def _note(answer: _Answer, manner: Manner) -> None:
    if answer.is_accepted is False and not manner.anyway:
        raise OperationError(
            f"{answer.told}; nothing was written (--anyway writes it all the same)"
        )
    click.echo(answer.told)


def _judge_budget(
    settings: Settings, manner: Manner, show_budget: Callable[[Budget], None]
) -> None:
    """Show what a month costs. What can't work in the long run is written only if wanted so."""
    month = budget(settings)
    show_budget(month)
    reach = PLANS[settings.coingecko.plan].history_days
    today = settings.clock.today()
    if reach is not None and settings.history.start < today - reach * DAY:
        click.echo(
            f"The plan '{settings.coingecko.plan}' reaches back to {today - reach * DAY}: what "
            "lies before can't be fetched with it."
        )
    if month.fits or manner.anyway:
        return
    if not manner.asks:
        raise OperationError(
            "these settings do not fit the plan, as told above; nothing was written (--anyway "
            "writes them all the same)"
        )
    click.confirm("They do not fit the plan. Write them all the same?", default=False, abort=True)


def _agree(drafted: Draft, manner: Manner) -> None:
    """Write nothing over what is there without being told to."""
    if not drafted.replaced or manner.overwrites:
        return
    click.echo("This would change what is there:")
    for line in drafted.replaced:
        click.echo(f"  {line}")
    if not manner.asks:
        raise OperationError(f"{FILE_NAME} or {DOTENV_NAME} exists: --overwrite changes it so")
    click.confirm("Change it?", default=False, abort=True)


def _tell_next(folder: Path, drafted: Draft, answer: _Answer) -> None:
    written = [file.path.name for file in drafted.files if file.is_changed]
    click.echo(f"Written: {' and '.join(written)}.")
    if DOTENV_NAME in written and not settings_files.is_kept_from_git(folder):
        click.echo(f"Git does not ignore {DOTENV_NAME} here: add it to .gitignore, it has secrets.")
    if answer.is_accepted is None:
        click.echo("Plan and key are not checked yet: crypto-assets doctor does it, once online.")
    click.echo(
        "Next: crypto-assets refresh   fetches the first days; then\n"
        "      crypto-assets up        keeps them fresh and shows them in the browser"
    )


def is_terminal() -> bool:
    """Tell whether there is a person to ask."""
    return sys.stdin is not None and sys.stdin.isatty()
