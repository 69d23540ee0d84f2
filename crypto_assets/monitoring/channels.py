"""The channels alerts go to: one apprise URL each. A URL is a secret and is never shown."""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

if TYPE_CHECKING:
    import apprise

Kind = Literal["failure", "warning", "success", "info"]


@dataclass(frozen=True)
class Channel:
    """One channel: what names it in files (no secret), what it is called, and its URL."""

    id: str
    name: str
    url: SecretStr

    def send(self, title: str, body: str, kind: Kind) -> bool:
        """Send one message (Markdown); tell whether the channel took it."""
        with self._service() as service:
            return service is not None and bool(
                service.notify(body=body, title=title, notify_type=kind, body_format="markdown")
            )

    def try_out(self) -> bool:
        """Send a test message; tell whether the channel took it."""
        return self.send("crypto_assets: a test", "Alerts of this home arrive here.", "info")

    @property
    def is_understood(self) -> bool:
        """Whether the URL is one of a service that apprise knows, and holds what that needs."""
        with self._service() as service:
            return service is not None

    @contextmanager
    def _service(self) -> "Iterator[apprise.Apprise | None]":
        """Yield the service of the URL, if it is understood."""
        # Imported here: it takes a second and only who is told of something needs it.
        with warnings.catch_warnings(), _silent("apprise", "urllib3"):
            # It loads all its plugins, one of which looks for a module that Python 3.13 drops.
            warnings.simplefilter("ignore", DeprecationWarning)
            import apprise

            asset = apprise.AppriseAsset(app_id="crypto_assets", secure_logging=True)
            service = apprise.Apprise(asset=asset)
            yield service if service.add(self.url.get_secret_value()) else None


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Keep libraries from logging meanwhile: what they say of a URL holds the URL."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def channels(urls: Sequence[SecretStr]) -> list[Channel]:
    """Return the channels of the setting `alerts.urls`."""
    found = [_channel(number, url) for number, url in enumerate(urls)]
    # A URL that is there twice is one channel.
    return list({channel.id: channel for channel in reversed(found)}.values())[::-1]


def _channel(number: int, url: SecretStr) -> Channel:
    text = url.get_secret_value()
    scheme = text.split("://", 1)[0]
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Channel(digest, f"alerts.urls[{number}] ({scheme})", url)
