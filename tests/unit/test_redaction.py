"""No secret is kept or shown: not in states, endings, events, logs or messages, and none is taken from a recipe."""

import logging
from dataclasses import replace
from pathlib import Path
from time import time

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.engine.clusters import named_cluster
from orchestrator.errors import ClusterError, RecipeError, UsageError
from orchestrator.recipe.load import load_recipe
from orchestrator.redaction import RedactingFormatter, redacted
from orchestrator.run.directory import RunDirectory
from orchestrator.run.ending import failure, read_ending, record_ending
from orchestrator.run.segments import SegmentWriter, read_segments
from orchestrator.run.state import State, write_state

SECRET = "hunter2-hunter2"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run on a machine whose environment holds a secret."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    directory = RunDirectory(tmp_path / "run")
    directory.create(now=time())
    return directory


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("can't read s3://key:hunter2@bucket/a", "can't read s3://***@bucket/a"),
        ("http://user:hunter2@head:8265 refuses", "http://***@head:8265 refuses"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer ***"),
        ("token hunter2-hunter2 refused", "token *** refused"),
        ("at http://head:8265/api, user@host", "at http://head:8265/api, user@host"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, shown: str):
    assert redacted(text, {"RAY_AUTH_TOKEN": SECRET, "HOME": "/root"}) == shown


def test_paths_and_short_values_are_no_secrets():
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": "/etc/key.json", "MY_TOKEN": "on", "COLOR": "red"}
    assert redacted("on red /etc/key.json", environment) == "on red /etc/key.json"


def test_the_token_in_a_file_counts_too(tmp_path: Path):
    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert redacted(f"said {SECRET}", {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}) == "said ***"


def test_what_a_run_keeps_holds_no_secret(run: RunDirectory):
    attempt = run.claim_attempt("holder")
    record_ending(attempt, failure(ClusterError(f"refused {SECRET}")))
    events = SegmentWriter(attempt.path, "events")
    events.append({"time": time(), "event": "workers_failed", "reason": f"said {SECRET}"})
    events.close()
    write_state(run.state, replace(run.read_state(), state=State.FAILED, reason=f"refused {SECRET}"))
    log = logging.FileHandler(attempt.logs / "driver.log")
    log.setFormatter(RedactingFormatter("%(message)s"))
    try:
        raise RuntimeError(f"RAY_AUTH_TOKEN={SECRET}")
    except RuntimeError as error:
        log.emit(
            logging.LogRecord("test", logging.ERROR, "", 0, "failed with %s", (SECRET,), (type(error), error, None))
        )
    log.close()
    kept = [path.read_text() for path in run.path.rglob("*") if path.is_file()]
    assert not [text for text in kept if SECRET in text]
    ending = read_ending(attempt)
    assert ending is not None
    assert (ending.reason, run.read_state().reason) == ("refused ***", "refused ***")
    assert [event["reason"] for event in read_segments(attempt.path, "events")] == ["said ***"]
    assert "failed with ***" in (attempt.logs / "driver.log").read_text()


@pytest.mark.parametrize("key", ["data.root", "data.cache_dir", "model.weights"])
def test_a_password_in_a_recipe_is_refused_and_not_repeated(key: str):
    with pytest.raises(RecipeError, match="found a URL with a password") as caught:
        load_recipe("demo", [f"{key}=s3://key:hunter2@bucket/imagenet"])
    assert "hunter2" not in redacted(str(caught.value)), "as main() prints it"


def test_a_password_in_a_clusters_address_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="found a URL with a password") as caught:
        named_cluster("http://user:hunter2@head:8265")
    assert "hunter2" not in str(caught.value)


def test_json_of_a_plan_and_a_recipe_holds_nothing_of_the_environment(run: RunDirectory):
    result = CliRunner().invoke(app, ["recipe", "show", "demo", "--json"])
    assert SECRET not in result.output
