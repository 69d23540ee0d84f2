"""What `operations.md` shows, as far as it can be tried without systemd, Docker or PostgreSQL."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from crypto_assets.monitoring.metrics import metrics
from crypto_assets.operations import home as homes
from crypto_assets.operations.errors import OperationError
from crypto_assets.settings import validated
from crypto_assets_tests.docs.pages import DOCS, REPOSITORY, blocks

PAGE = DOCS / "operations.md"
PLACE = "/srv/crypto_assets"


def shown(language: str) -> list[str]:
    found = [block.text for block in blocks(PAGE) if block.language == language]
    assert found
    return found


def unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_the_unit_starts_the_platform_of_the_home_and_restarts_it() -> None:
    service = unit(shown("ini")[0])["Service"]
    assert shlex.split(service["ExecStart"]) == [f"{PLACE}/.venv/bin/crypto-assets", "up"]
    assert service["WorkingDirectory"] == PLACE
    assert service["Environment"] == f"CRYPTO_ASSETS_HOME={PLACE}/data"
    assert service["Restart"] == "on-failure"


def verified(text: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    (folder / "crypto_assets.service").write_text(text)
    return subprocess.run(
        ["systemd-analyze", "verify", str(folder / "crypto_assets.service")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    command = tmp_path / ".venv" / "bin" / "crypto-assets"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    text = shown("ini")[0].replace(PLACE, str(tmp_path)).replace("User=crypto", "User=root")
    done = verified(text, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    # It would tell: of a key that does not exist, and of a command that is not there.
    command.unlink()
    done = verified(text.replace("Restart=", "Restrat="), tmp_path)
    assert done.returncode != 0
    assert "Restrat" in done.stderr


def test_the_container_file_is_made_of_what_is_in_the_clone() -> None:
    lines = [line.split(" ", 1) for line in shown("dockerfile")[0].splitlines()]
    words = {key: [value for k, value in lines if k == key] for key, _ in lines}
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "CMD"}
    assert set(words) == known
    assert lines[0] == ["FROM", "python:3.11-slim"]
    needed = re.search(
        r'requires-python = ">=3\.(\d+)"', (REPOSITORY / "pyproject.toml").read_text()
    )
    assert needed
    assert int(needed[1]) <= 11
    for copied in words["COPY"]:
        assert all((REPOSITORY / name).exists() for name in copied.split()[:-1])
    assert words["ENV"] == ["CRYPTO_ASSETS_HOME=/data"]
    assert words["VOLUME"] == ["/data"]
    # What comes later in the file runs as that user, in its folder.
    assert words["USER"] == ["crypto"]
    assert words["WORKDIR"][-1] == "/data"


def test_commands_for_a_machine_with_systemd_and_docker_name_what_the_page_made() -> None:
    lines = [shlex.split(line) for text in shown("console") for line in text.splitlines()]
    assert {words[0] for words in lines} == {
        *("useradd", "chown", "systemctl", "journalctl", "docker", ".venv/bin/pip"),
    }
    text = PAGE.read_text("utf-8")
    for words in lines:
        if words[0] in ("systemctl", "journalctl"):
            units = [word for word in words if word.endswith(".service")]
            assert all(f"/etc/systemd/system/{name}" in text for name in units)
    user = next(line[5:] for line in shown("ini")[0].splitlines() if line.startswith("User="))
    assert ["useradd", "--system", user] in lines
    asking, run = (words for words in lines if words[:2] == ["docker", "run"])
    (volume,) = {words[words.index("--volume") + 1] for words in (asking, run)}
    assert volume.endswith(":/data")
    assert asking[-2:] == ["crypto-assets", "init"]
    (exposed,) = re.findall(r"^EXPOSE (\d+)$", shown("dockerfile")[0], re.MULTILINE)
    published = run[run.index("--publish") + 1]
    # On loopback only: the UI asks nobody for a password.
    assert published == f"127.0.0.1:{exposed}:{exposed}"
    built = next(words for words in lines if words[:2] == ["docker", "build"])
    assert built[built.index("--tag") + 1] == run[-1]


def yaml_with(key: str) -> tuple[str, dict[str, Any]]:
    trees = [(text, yaml.safe_load(text)) for text in shown("yaml")]
    (found,) = [(text, tree) for text, tree in trees if set(tree) == {key}]
    return found


def test_dagster_loads_the_storage_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, tree = yaml_with("storage")
    settings = validated({"home": tmp_path / "home"})
    before = yaml.safe_load((homes.prepare(settings) / "dagster.yaml").read_text())
    assert before["storage"]["custom"]["config"] == {"base_dir": str(settings.home / "dagster")}
    (settings.home / homes.STORAGE_NAME).write_text(text)
    after = yaml.safe_load((homes.prepare(settings) / "dagster.yaml").read_text())
    assert after == before | tree
    # Dagster's own check of the whole file, which needs no library of PostgreSQL's.
    monkeypatch.setenv("DAGSTER_POSTGRES_PASSWORD", "secret")
    loaded, _ = dagster_instance_config(str(settings.home))
    assert loaded["storage"] == tree["storage"]
    (settings.home / homes.STORAGE_NAME).unlink()
    assert yaml.safe_load((homes.prepare(settings) / "dagster.yaml").read_text()) == before


def test_dagster_would_tell_of_a_wrong_one(tmp_path: Path) -> None:
    settings = validated({"home": tmp_path / "home"})
    settings.home.mkdir()
    wrong = "storage:\n  postgres:\n    postgres_db:\n      host: localhost\n"
    (settings.home / homes.STORAGE_NAME).write_text(wrong)
    homes.prepare(settings)
    with pytest.raises(Exception, match="host"):
        dagster_instance_config(str(settings.home))


@pytest.mark.parametrize("text", ["", "storage: [", "storage: {}\nretention: {}\n", "\xff", "- a"])
def test_a_file_that_is_no_storage_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    settings = validated({"home": tmp_path / "home"})
    settings.home.mkdir()
    file = settings.home / homes.STORAGE_NAME
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(OperationError, match=f"{re.escape(str(file))} must be YAML"):
        homes.prepare(settings)


def test_the_alert_rules_use_figures_that_exist() -> None:
    _, tree = yaml_with("groups")
    written = set(re.findall(r"^(crypto_assets_\w+) ", metrics(None, []), re.MULTILINE))
    for rule in tree["groups"][0]["rules"]:
        used = set(re.findall(r"crypto_assets_\w+", rule["expr"]))
        assert used
        assert used <= written


def test_the_crontab_line_is_one(tmp_path: Path) -> None:
    (line,) = shown("crontab")[0].splitlines()
    *when, command = line.split(" ", 5)
    cron = " ".join(when)
    assert validated({"schedules": {"backup": cron}}).schedules.backup == cron
    assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
    # cron ends a line at a percent sign.
    assert "%" not in command


def test_the_release_of_dagsters_library_is_the_one_of_our_dagster() -> None:
    ours = re.search(
        r"^dagster-duckdb-pandas==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.M
    )
    assert ours
    assert f"dagster-postgres=={ours[1]}" in "".join(shown("console"))
