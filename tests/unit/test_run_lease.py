"""The lease: who writes a run now."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from time import sleep, time

import pytest

from orchestrator.run import files, lease
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import LEASE_DURATION_S, Lease, LeaseKeeper, living_holder, read_lease

LEASE = Lease(holder="a", host="host", process_id=1, attempt=1, renewed_at=1000.0, expires_at=1000.0 + LEASE_DURATION_S)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(lease, "RENEWAL_INTERVAL_S", 0.01)
    run = RunDirectory(tmp_path / "run")
    run.create(now=time())
    return run


def _keeper(run: RunDirectory, holder: str) -> LeaseKeeper:
    run.claim_attempt(holder)
    return LeaseKeeper(run.lease, holder=holder, newest_attempt=run.newest_attempt)


@pytest.mark.parametrize(
    ("now", "is_live"),
    [(1000.0, True), (1009.9, True), (1010.0, False), (5000.0, False), (995.0, True), (900.0, False)],
    ids=["just renewed", "almost expired", "expired", "long ago", "clocks 5 s apart", "from the future"],
)
def test_a_lease_is_live_until_it_expires_and_not_before_its_time(now: float, is_live: bool):
    assert LEASE.is_live(now) == is_live


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format_version": 1, "holder": "a"}'])
def test_what_is_no_lease_reads_as_none(tmp_path: Path, content: bytes):
    (tmp_path / "lease.json").write_bytes(content)
    assert read_lease(tmp_path / "lease.json") is None


def test_a_keeper_renews_until_it_is_closed(run: RunDirectory):
    keeper = _keeper(run, "a")
    first = read_lease(run.lease)
    assert first is not None
    living = living_holder(run.lease)
    assert living is not None
    assert (living.holder, living.attempt) == ("a", 1)
    assert living.renewed_at > first.renewed_at
    keeper.close()
    last = read_lease(run.lease)
    assert last is not None
    assert not last.is_live(time()), "a lease is given back, so that nobody has to wait for it"


@pytest.mark.parametrize("left", ["nothing", "an empty attempt"])
def test_a_storage_that_is_away_takes_nothing_over(run: RunDirectory, tmp_path: Path, left: str):
    keeper = _keeper(run, "a")
    run.path.rename(tmp_path / "away")
    if left == "an empty attempt":  # as a process that makes its directories leaves it, or a look that was just begun
        run.attempt(1).path.mkdir(parents=True)
    sleep(0.1)
    assert not keeper.taken_over.is_set()
    shutil.rmtree(run.path, ignore_errors=True)
    (tmp_path / "away").rename(run.path)
    assert living_holder(run.lease) is not None
    keeper.close()


def test_a_keeper_that_was_taken_over_says_so_and_leaves_the_lease_alone(run: RunDirectory):
    old = _keeper(run, "a")
    new = _keeper(run, "b")
    assert old.taken_over.wait(5)
    living = living_holder(run.lease)
    assert living is not None
    assert (living.holder, living.attempt) == ("b", 2)
    assert not new.taken_over.is_set()
    old.close()
    new.close()


def test_a_keeper_outlives_storage_that_fails_for_a_moment(run: RunDirectory):
    keeper = _keeper(run, "a")
    owner = run.attempt(1).owner.read_bytes()
    run.attempt(1).owner.write_bytes(b"")
    before = read_lease(run.lease)
    run.attempt(1).owner.write_bytes(owner)
    living = living_holder(run.lease)
    assert before is not None
    assert living is not None
    assert living.renewed_at > before.renewed_at
    assert not keeper.taken_over.is_set()
    keeper.close()


def test_nobody_lives_where_the_lease_is_not_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "RENEWAL_INTERVAL_S", 0.05)
    path = tmp_path / "lease.json"
    assert living_holder(path) is None
    now = time()
    files.write_json(path, asdict(replace(LEASE, renewed_at=now, expires_at=now + 0.3)))
    assert living_holder(path) is None


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0], ids=["back", "forth"])
def test_a_holder_is_seen_to_be_alive_whatever_the_clocks_say(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, jump_s: float
):
    monkeypatch.setattr(lease, "RENEWALS_WATCHED", 500.0)
    keeper = _keeper(run, "a")
    with monkeypatch.context() as jumped:
        jumped.setattr(lease, "time", lambda: time() + jump_s)
        living = living_holder(run.lease)
    assert living is not None
    assert living.holder == "a"
    keeper.close()


def test_a_lease_that_was_given_back_is_nobodys_at_once(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    _keeper(run, "a").close()
    monkeypatch.setattr(lease, "sleep", lambda _: pytest.fail("it waited"))
    assert living_holder(run.lease) is None
