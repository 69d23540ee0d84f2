import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from crypto_assets.monitoring.alerts import AlertBook, AlertsError, Message
from crypto_assets.monitoring.channels import Channel, channels
from crypto_assets.monitoring.condition import Condition
from crypto_assets_tests.lab import NOON
from crypto_assets_tests.webhook import Webhook, open_webhook

MINUTE = timedelta(minutes=1)
SECRET = "hook-secret-8c1d"  # in the URL of every webhook


def wrong(name: str, *, is_error: bool = True) -> Condition:
    return Condition(
        f"key:{name}",
        f"{name} is wrong",
        f"the detail of {name}",
        f"the advice on {name}",
        f"http://ui.invalid/{name}",
        is_error=is_error,
    )


def to(*hooks: Webhook) -> list[Channel]:
    return channels([SecretStr(hook.url) for hook in hooks])


def told(hook: Webhook) -> list[str]:
    """All titles a channel was told, also those of messages that were sent together."""
    found = []
    for message in hook.messages:
        if re.fullmatch(r"crypto_assets: \d+ messages", message["title"]):
            found += re.findall(r"^\*\*(.*)\*\*$", message["message"], re.MULTILINE)
        else:
            found.append(message["title"])
    return found


def look(
    book: AlertBook, active: Sequence[Condition], hooks: Sequence[Webhook], at: datetime = NOON
) -> int:
    book.update(active, to(*hooks), at)
    return book.deliver(to(*hooks), at)


@pytest.fixture
def book(tmp_path: Path) -> AlertBook:
    return AlertBook(tmp_path)


def test_an_alert_says_what_since_when_where_to_click_and_what_to_do(
    book: AlertBook, hook: Webhook
) -> None:
    assert look(book, [wrong("ranks")], [hook]) == 0
    (message,) = hook.messages
    assert message["title"] == "crypto_assets: ranks is wrong"
    assert message["type"] == "failure"
    for part in (
        "the detail of ranks",
        "Since: 2026-03-10 12:20 UTC",
        "Look: http://ui.invalid/ranks",
        "Do: the advice on ranks",
    ):
        assert part in message["message"]


def test_a_condition_that_lasts_is_told_once(book: AlertBook, hook: Webhook) -> None:
    for minute in range(5):
        look(book, [wrong("ranks")], [hook], NOON + minute * MINUTE)
    assert told(hook) == ["crypto_assets: ranks is wrong"]
    assert book.since() == {"key:ranks": NOON}


def test_what_is_over_is_told_once_with_how_long_it_lasted(book: AlertBook, hook: Webhook) -> None:
    look(book, [wrong("ranks")], [hook])
    for minute in (90, 91, 92):
        look(book, [], [hook], NOON + minute * MINUTE)
    assert told(hook) == ["crypto_assets: ranks is wrong", "crypto_assets: over: ranks is wrong"]
    over = hook.messages[-1]
    assert over["type"] == "success"
    assert "from 2026-03-10 12:20 to 2026-03-10 13:50 UTC" in over["message"]
    assert book.since() == {}


def test_what_comes_again_is_told_again(book: AlertBook, hook: Webhook) -> None:
    for active in ([wrong("ranks")], [], [wrong("ranks")]):
        look(book, active, [hook])
    assert told(hook)[-1] == "crypto_assets: ranks is wrong"
    assert len(told(hook)) == 3


def test_a_warning_is_no_failure(book: AlertBook, hook: Webhook) -> None:
    look(book, [wrong("ranks", is_error=False)], [hook])
    assert [message["type"] for message in hook.messages] == ["warning"]


def test_several_things_are_one_message_as_grave_as_its_gravest(
    book: AlertBook, hook: Webhook
) -> None:
    look(book, [wrong("a", is_error=False), wrong("b"), wrong("c", is_error=False)], [hook])
    (message,) = hook.messages
    assert message["title"] == "crypto_assets: 3 messages"
    assert message["type"] == "failure"
    assert told(hook) == [f"crypto_assets: {name} is wrong" for name in "abc"]


def test_a_channel_that_was_down_gets_everything_later_in_one_message_and_others_nothing_twice(
    book: AlertBook, hook: Webhook, other_hook: Webhook
) -> None:
    other_hook.status = 503
    both = [hook, other_hook]
    assert look(book, [wrong("a")], both) == 1
    assert look(book, [wrong("a"), wrong("b")], both) == 2
    assert look(book, [wrong("b")], both) == 3
    assert other_hook.messages == []
    other_hook.status = 200
    assert look(book, [wrong("b")], both) == 0
    assert len(other_hook.messages) == 1
    everything = [f"crypto_assets: {what}" for what in ("a is wrong", "b is wrong")]
    everything.append("crypto_assets: over: a is wrong")
    assert told(other_hook) == told(hook) == everything
    assert len(hook.messages) == 3


def test_what_waits_for_a_channel_that_was_taken_out_of_the_settings_goes(
    book: AlertBook, hook: Webhook, other_hook: Webhook
) -> None:
    other_hook.status = 503
    assert look(book, [wrong("a")], [hook, other_hook]) == 1
    assert look(book, [wrong("a")], [hook]) == 0
    assert book.undelivered() == 0
    other_hook.status = 200
    look(book, [wrong("a")], [hook, other_hook])
    assert other_hook.messages == []


def test_without_a_channel_nothing_waits(book: AlertBook) -> None:
    assert look(book, [wrong("a")], []) == 0
    assert book.since() == {"key:a": NOON}


def test_what_nobody_took_for_a_week_is_no_news_any_more(book: AlertBook, hook: Webhook) -> None:
    hook.status = 503
    look(book, [wrong("a")], [hook])
    assert look(book, [wrong("a")], [hook], NOON + timedelta(days=7)) == 1
    assert look(book, [wrong("a")], [hook], NOON + timedelta(days=7, seconds=1)) == 0


def test_a_message_survives_a_kill_between_writing_it_down_and_sending_it(
    tmp_path: Path, hook: Webhook
) -> None:
    AlertBook(tmp_path).update([wrong("a")], to(hook), NOON)
    reopened = AlertBook(tmp_path)
    assert reopened.undelivered() == 1
    assert look(reopened, [wrong("a")], [hook]) == 0
    assert told(hook) == ["crypto_assets: a is wrong"]


def test_the_file_of_the_home_does_not_hold_the_url(tmp_path: Path, hook: Webhook) -> None:
    hook.status = 503
    book = AlertBook(tmp_path)
    look(book, [wrong("a")], [hook])
    book.close()
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"a is wrong" in held
    assert SECRET.encode() not in held


def test_a_clock_that_was_set_back_neither_repeats_nor_swallows(
    book: AlertBook, hook: Webhook
) -> None:
    look(book, [wrong("a")], [hook])
    look(book, [wrong("a"), wrong("b")], [hook], NOON - timedelta(days=30))
    look(book, [], [hook], NOON - timedelta(days=30))
    assert Counter(told(hook)) == Counter(
        f"crypto_assets: {over}{name} is wrong" for name in "ab" for over in ("", "over: ")
    )


def test_a_book_that_cannot_be_kept_says_why_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "alerts.sqlite").write_text("no database at all, but long enough to be read")
    with pytest.raises(AlertsError, match=r"book of alerts .*check free disk space"):
        AlertBook(tmp_path).undelivered()


def test_what_is_kept_under_a_name_is_there_after_reopening(tmp_path: Path) -> None:
    assert AlertBook(tmp_path).recall("a") is None
    AlertBook(tmp_path).keep("a", {"b": [1, None]})
    AlertBook(tmp_path).keep("a", {"b": [2, None]})
    assert AlertBook(tmp_path).recall("a") == {"b": [2, None]}


def together(*works: "threading.Thread") -> None:
    for work in works:
        work.start()
    for work in works:
        work.join()


def test_two_who_notice_the_same_at_once_tell_it_once(tmp_path: Path, hook: Webhook) -> None:
    books = [AlertBook(tmp_path) for _ in range(4)]
    barrier = threading.Barrier(4)

    def notice(book: AlertBook) -> None:
        barrier.wait()
        book.update([wrong("a"), wrong("b")], to(hook), NOON)

    together(*(threading.Thread(target=notice, args=(book,)) for book in books))
    assert books[0].undelivered() == 2


def test_two_who_deliver_at_once_tell_it_once(tmp_path: Path) -> None:
    first, second = AlertBook(tmp_path), AlertBook(tmp_path)
    with open_webhook() as hook:
        first.update([wrong("a")], to(hook), NOON)

        class Meeting(Channel):
            """While it sends, the other process delivers too."""

            def send(self, *message: str) -> bool:  # type: ignore[override]
                second.deliver(to(hook), NOON)
                return super().send(*message)  # type: ignore[arg-type]

        (channel,) = to(hook)
        first.deliver([Meeting(channel.id, channel.name, channel.url)], NOON)
        assert told(hook) == ["crypto_assets: a is wrong"]


def test_a_url_that_is_in_the_settings_twice_is_one_channel(book: AlertBook, hook: Webhook) -> None:
    look(book, [wrong("a")], [hook, hook])
    assert told(hook) == ["crypto_assets: a is wrong"]


class Limited(Channel):
    """A channel with a limit to the length of a message, as Discord's 2,000 characters."""

    def send(self, title: str, body: str, kind: object) -> bool:
        return len(body) <= 2000 and super().send(title, body, kind)  # type: ignore[arg-type]


def test_a_report_that_is_too_long_for_a_channel_does_not_keep_alerts_from_it(
    book: AlertBook, hook: Webhook
) -> None:
    limited = [Limited(channel.id, channel.name, channel.url) for channel in to(hook)]
    book.post(Message("info", "the report", "x" * 2001), limited, NOON)
    book.deliver(limited, NOON)
    book.update([wrong("a")], limited, NOON)
    book.deliver(limited, NOON)
    assert "crypto_assets: a is wrong" in told(hook)


NAMES = st.frozensets(st.sampled_from("abcd"), max_size=4)
STEP = st.tuples(NAMES, st.booleans(), st.booleans(), st.booleans())


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, min_size=1, max_size=6))
def test_each_beginning_and_each_end_is_told_exactly_once_to_every_channel(
    steps: list[tuple[frozenset[str], bool, bool, bool]], hook: Webhook, other_hook: Webhook
) -> None:
    hooks = [hook, other_hook]
    for each in hooks:
        each.messages.clear()
    expected: Counter[str] = Counter()
    before: frozenset[str] = frozenset()
    at = NOON
    with TemporaryDirectory() as folder:
        book = AlertBook(Path(folder))
        for names, is_down, is_other_down, is_reopened in steps:
            hook.status, other_hook.status = 503 if is_down else 200, 503 if is_other_down else 200
            at += MINUTE
            look(book, [wrong(name) for name in sorted(names)], hooks, at)
            expected.update(f"crypto_assets: {name} is wrong" for name in names - before)
            expected.update(f"crypto_assets: over: {name} is wrong" for name in before - names)
            before = names
            if is_reopened:
                book.close()
                book = AlertBook(Path(folder))
        hook.status = other_hook.status = 200
        assert book.deliver(to(*hooks), at) == 0
        book.close()
    assert Counter(told(hook)) == Counter(told(other_hook)) == expected


def test_what_was_sent_does_not_pile_up(tmp_path: Path, hook: Webhook) -> None:
    book = AlertBook(tmp_path)
    for day in range(20):
        look(book, [wrong("a")] if day % 2 else [], [hook], NOON + timedelta(days=day))
    book.close()
    with sqlite3.connect(tmp_path / "alerts.sqlite") as connection:
        (count,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
    assert count <= 8


def test_what_is_suspended_neither_begins_nor_ends(book: AlertBook, hook: Webhook) -> None:
    suspended = replace(wrong("a"), is_suspended=True)
    look(book, [suspended], [hook])
    assert told(hook) == []
    look(book, [wrong("a")], [hook])
    look(book, [suspended], [hook])
    look(book, [wrong("a")], [hook])
    assert told(hook) == ["crypto_assets: a is wrong"]
    look(book, [], [hook])
    assert told(hook)[1:] == ["crypto_assets: over: a is wrong"]
