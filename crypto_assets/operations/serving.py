"""Webserver and daemon of a home, in the foreground, ended together."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from crypto_assets.operations import home
from crypto_assets.operations.errors import OperationError
from crypto_assets.settings import Settings

_CODE = ("-m", "crypto_assets.definitions")
_GRACE_SECONDS = 20


def serve(settings: Settings, host: str, port: int) -> int:
    """Run webserver and daemon until told to end; return the exit code of the first that ended.

    When one dies the other is ended too: half a platform would look alive and do nothing.
    """
    folder = home.prepare(settings)
    environment = os.environ | {"DAGSTER_HOME": str(folder), "CRYPTO_ASSETS_HOME": str(folder)}
    webserver = [_script("dagster-webserver"), *_CODE, "-h", host, "-p", str(port)]
    daemon = [_script("dagster-daemon"), "run", *_CODE]
    told_to_end = threading.Event()
    ended: list[subprocess.Popen[bytes]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_end.set())
    # Sessions of their own, so that Ctrl-C reaches them through us, once, and in order.
    processes = [
        subprocess.Popen(command, env=environment, start_new_session=True)
        for command in (webserver, daemon)
    ]
    for process in processes:
        threading.Thread(target=_note_end, args=(process, ended, told_to_end), daemon=True).start()
    told_to_end.wait()
    code = ended[0].wait() if ended else 0
    for process in processes:
        _end(process)
    return code


def refuse_taken(host: str, port: int) -> None:
    """Raise `OperationError` when something else listens on the address already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OperationError(
                f"can't listen on {host}:{port} ({error.strerror}): choose another --port"
            ) from None


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _note_end(
    process: "subprocess.Popen[bytes]",
    ended: "list[subprocess.Popen[bytes]]",
    told_to_end: threading.Event,
) -> None:
    process.wait()
    if not told_to_end.is_set():
        ended.append(process)
        told_to_end.set()


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
