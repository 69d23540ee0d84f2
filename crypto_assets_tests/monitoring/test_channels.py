import logging

import pytest
from pydantic import SecretStr

from crypto_assets.monitoring.channels import Kind, channels
from crypto_assets_tests.webhook import Webhook

SECRET = "canary-77ab"
# What a URL may be wrong in: its scheme, its host, its token, or that nobody answers.
BAD_URLS = [
    pytest.param(f"nosuch://{SECRET}/x"),
    f"json://:99999/{SECRET}",
    f"json://[{SECRET}",
    f"json://user:{SECRET}@127.0.0.1:9/x",
    f"json://127.0.0.1:9/{SECRET}",
    pytest.param(f"slack://{SECRET}/x"),
    pytest.param(f"discord://{SECRET}"),
    pytest.param(f"tgram://{SECRET}/123"),
]


@pytest.mark.parametrize("kind", ["failure", "warning", "success", "info"])
def test_a_message_arrives_with_its_title_its_body_and_its_kind(hook: Webhook, kind: Kind) -> None:
    (channel,) = channels([SecretStr(hook.url)])
    assert channel.send("coin <x> & y", "**bold**\n\n- `a` | b", kind)
    (message,) = hook.messages
    assert (message["title"], message["message"], message["type"]) == (
        "coin <x> & y",
        "**bold**\n\n- `a` | b",
        kind,
    )


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_a_channel_that_answers_anything_but_success_took_nothing(
    hook: Webhook, status: int
) -> None:
    hook.status = status
    (channel,) = channels([SecretStr(hook.url)])
    assert not channel.send("a title", "a body", "info")


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_nobody_can_use_is_refused_without_being_shown(
    url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        (channel,) = channels([SecretStr(url)])
        assert not channel.send("a title", "a body", "info")
    told = capfd.readouterr()
    for text in (caplog.text, told.out, told.err, repr(channel), str(channel), channel.name):
        assert SECRET not in text


def test_a_channel_is_named_by_its_place_and_its_scheme(hook: Webhook) -> None:
    found = channels([SecretStr(hook.url), SecretStr(f"slack://{SECRET}/b/c")])
    assert [channel.name for channel in found] == [
        "alerts.urls[0] (json)",
        "alerts.urls[1] (slack)",
    ]


def test_what_names_a_channel_in_files_follows_its_url_and_not_its_place(hook: Webhook) -> None:
    first, second = SecretStr(hook.url), SecretStr(f"slack://{SECRET}/b/c")
    before = {channel.url.get_secret_value(): channel.id for channel in channels([first, second])}
    after = {channel.url.get_secret_value(): channel.id for channel in channels([second, first])}
    assert before == after
    assert len(set(before.values())) == 2
    assert SECRET not in str(before.values())
