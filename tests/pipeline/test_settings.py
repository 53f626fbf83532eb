"""What workers are told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.settings import ApiSettings, GatewaySettings, GroupSettings, ReconcileSettings, RelaySettings, load

COMPLETE = {
    "DATABASE_URL": "postgresql://127.0.0.1/shop",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "GATEWAY_URL": "http://127.0.0.1:8001",
    "PORT": "8000",
    "LEDGER": "charges.jsonl",
}
NEEDED = {
    ApiSettings: ["DATABASE_URL", "PORT"],
    RelaySettings: ["DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"],
    GroupSettings: ["DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"],
    ReconcileSettings: ["DATABASE_URL", "GATEWAY_URL"],
    GatewaySettings: ["PORT", "LEDGER"],
}
EVERYTHING = [*COMPLETE, "NAMESPACE", "GROUP_INSTANCE_ID", "SESSION_TIMEOUT_MS", "RELAY_INTERVAL_S"]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EVERYTHING:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("settings", NEEDED)
def test_a_worker_needs_only_what_it_uses(settings: type[ApiSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker starts when exactly its own variables are set."""
    for name in NEEDED[settings]:
        monkeypatch.setenv(name, COMPLETE[name])
    assert isinstance(load(settings), settings)


@pytest.mark.parametrize(("settings", "name"), [(s, name) for s, names in NEEDED.items() for name in names])
def test_a_missing_variable_is_named(
    settings: type[ApiSettings], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing variable ends the process with one line that names it and gives an example."""
    for other, value in COMPLETE.items():
        if other != name:
            monkeypatch.setenv(other, value)
    with pytest.raises(SystemExit) as end:
        load(settings)
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 1
    assert line.startswith(f"pipeline: {name} is not set.")
    assert "such as" in line


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("PORT", "0"), ("PORT", "70000")])
def test_a_wrong_variable_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that makes no sense ends the process with one line that names it."""
    for other, fine in COMPLETE.items():
        monkeypatch.setenv(other, fine)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load(ApiSettings)
    [line] = capsys.readouterr().err.splitlines()
    assert f"{name} is wrong" in line


def test_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty GROUP_INSTANCE_ID means a dynamic member, not a static one without a name."""
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GROUP_INSTANCE_ID", "")
    assert load(GroupSettings).group_instance_id is None


def test_settings_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody changes settings while a worker runs."""
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    settings = load(ApiSettings)
    with pytest.raises(ValidationError):
        settings.port = 1
