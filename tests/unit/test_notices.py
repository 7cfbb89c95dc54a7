"""Notices of each cloud, read from servers that speak its protocol, and what a server that doesn't can do: nothing."""

import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.cli import doctor
from orchestrator.engine.notices.aws import Aws
from orchestrator.engine.notices.azure import Azure
from orchestrator.engine.notices.clouds import find_cloud
from orchestrator.engine.notices.gcp import Gcp
from orchestrator.engine.notices.notice import Cloud, Notice
from orchestrator.engine.notices.watch import NoticeWatch
from orchestrator.errors import ClusterError, MetadataError, UsageError
from tests.metadata_servers import AwsMetadata, AzureMetadata, GcpMetadata, Metadata, Server, serving

NOON = datetime(2026, 9, 18, 12, 0, tzinfo=UTC).timestamp()


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Server]:
    with serving(AwsMetadata, tmp_path) as server:
        yield server


@pytest.fixture
def gcp(tmp_path: Path) -> Iterator[Server]:
    with serving(GcpMetadata, tmp_path) as server:
        yield server


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Server]:
    with serving(AzureMetadata, tmp_path) as server:
        yield server


# AWS


def test_an_interruption_comes_with_its_time_and_a_token_is_asked_for_once(aws: Server):
    cloud = Aws(aws.address)
    assert cloud.look() is None
    (aws.folder / "instance-action").write_text('{"action": "terminate", "time": "2026-09-18T12:00:00Z"}')
    assert cloud.look() == Notice(cloud="AWS", what="spot interruption (terminate)", deadline=NOON)
    assert [line for line in aws.asked if line.startswith("PUT")] == ["PUT /latest/api/token -> 200"]
    assert not [line for line in aws.asked if line.endswith("401")], "nothing is asked without a token"


def test_the_advice_to_leave_has_no_time_and_gives_way_to_an_interruption(aws: Server):
    cloud = Aws(aws.address)
    (aws.folder / "rebalance").write_text('{"noticeTime": "2026-09-18T11:50:00Z"}')
    assert cloud.look() == Notice(cloud="AWS", what="rebalance recommendation", deadline=None)
    (aws.folder / "instance-action").write_text('{"action": "stop", "time": "2026-09-18T12:00:00Z"}')
    assert cloud.look() == Notice(cloud="AWS", what="spot interruption (stop)", deadline=NOON)


def test_a_token_is_renewed_before_it_expires(aws: Server):
    now = NOON
    cloud = Aws(aws.address, clock=lambda: now)
    cloud.look()
    now += 21600 - 61
    cloud.look()
    assert sum("token" in line for line in aws.asked) == 1
    now += 2
    cloud.look()
    assert sum("token" in line for line in aws.asked) == 2
    assert not [line for line in aws.asked if line.endswith("401")]


def test_a_token_that_has_gone_before_its_time_is_replaced(aws: Server):
    cloud = Aws(aws.address)
    cloud.look()
    aws.tokens.clear()
    (aws.folder / "rebalance").write_text("{}")
    assert cloud.look() is not None
    assert sum("token" in line for line in aws.asked) == 2


def test_a_server_that_gives_no_token_is_not_asked_without_one(tmp_path: Path):
    class FirstVersion(Metadata):
        def do_PUT(self) -> None:
            self.reply(404)

        def do_GET(self) -> None:
            self.reply(200, '{"action": "terminate", "time": "2026-09-18T12:00:00Z"}')

    with serving(FirstVersion, tmp_path) as server:
        with pytest.raises(MetadataError, match=r"gives no token .*hop limit of 2"):
            Aws(server.address).look()
        assert server.asked == ["PUT /latest/api/token -> 404"]


# Google Cloud


def test_a_preemption_is_known_as_soon_as_it_is_announced(gcp: Server):
    now = NOON
    cloud = Gcp(gcp.address, clock=lambda: now, wait_s=30)
    assert cloud.look() is None
    Thread(target=lambda: (sleep(0.2), (gcp.folder / "preempted").write_text("TRUE"))).start()
    began_at = monotonic()
    notice = cloud.look()
    assert notice == Notice(cloud="Google Cloud", what="preemption", deadline=NOON + 30, event="preempted")
    assert monotonic() - began_at < 25, "the wait is ended by the change"
    now += 7
    assert cloud.look() == notice, "its deadline stays what it was"


def test_a_preemption_before_the_first_look_is_not_waited_for(gcp: Server):
    (gcp.folder / "preempted").write_text("TRUE")
    notice = Gcp(gcp.address, wait_s=30).look()
    assert notice is not None
    assert gcp.asked == ["GET /computeMetadata/v1/instance/preempted -> 200"]


def test_maintenance_that_ends_the_vm_is_a_notice_and_migration_is_none(gcp: Server):
    cloud = Gcp(gcp.address, wait_s=0)
    (gcp.folder / "maintenance-event").write_text("MIGRATE_ON_HOST_MAINTENANCE")
    assert cloud.look() is None
    (gcp.folder / "maintenance-event").write_text("TERMINATE_ON_HOST_MAINTENANCE")
    notice = cloud.look()
    assert notice is not None
    assert (str(notice), notice.deadline) == ("Google Cloud host maintenance", None)


def test_what_answers_without_googles_header_is_not_believed(aws: Server, tmp_path: Path):
    class Anybody(Metadata):
        def do_GET(self) -> None:
            self.reply(200, "TRUE", ETag="1")

    with serving(Anybody, tmp_path) as server, pytest.raises(MetadataError, match="no metadata server of Google's"):
        Gcp(server.address).look()


# Azure


def event(kind: str, *, vm: str = "vm_3", at: str = "Fri, 18 Sep 2026 12:00:00 GMT", name: str = "A-1") -> str:
    document = {
        "EventId": name,
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": ["vm_2", vm],
        "EventStatus": "Scheduled" if at else "Started",
        "NotBefore": at,
    }
    return json.dumps({"DocumentIncarnation": 2, "Events": [document]})


@pytest.mark.parametrize(
    ("kind", "what"), [("Preempt", "spot eviction"), ("Terminate", "termination"), ("Reboot", "reboot")]
)
def test_an_event_of_this_vm_comes_with_its_time_and_is_acknowledged(azure: Server, kind: str, what: str):
    cloud = Azure(azure.address)
    assert cloud.look() is None
    (azure.folder / "events").write_text(event(kind))
    notice = cloud.look()
    assert notice == Notice(cloud="Azure", what=what, deadline=NOON, event="A-1")
    assert notice is not None
    cloud.acknowledge(notice)
    assert (azure.folder / "acknowledged").read_text() == "A-1"


def test_an_event_that_has_begun_has_no_time_left_to_tell(azure: Server):
    (azure.folder / "events").write_text(event("Preempt", at=""))
    notice = Azure(azure.address).look()
    assert notice is not None
    assert notice.deadline is None


def test_events_of_other_vms_and_pauses_of_seconds_are_none_of_ours(azure: Server):
    for text in (event("Preempt", vm="vm_4"), event("Freeze")):
        (azure.folder / "events").write_text(text)
        assert Azure(azure.address).look() is None


# Servers that fail


class Raw:
    """A port that answers every connection in its own way."""

    def __init__(self, answer: Callable[[socket.socket], object]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answer = answer
        Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                self._answer(connection)
            except OSError:
                pass

    def close(self) -> None:
        self._listener.close()


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    raw = Raw(answer)
    try:
        yield raw.address
    finally:
        raw.close()


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        sleep(0.02)


BAD: dict[str, Callable[[socket.socket], object]] = {
    "closes at once": lambda connection: None,
    "hangs": lambda connection: sleep(300),
    "never ends": drip,
    "is cut off": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
    "answers 500": lambda connection: connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
    "redirects": lambda connection: connection.sendall(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    ),
    "is no server of HTTP": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "sends too much": lambda connection: connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"[" * (1 << 21)
    ),
}


ENDLESS = ("hangs", "never ends")


@pytest.mark.parametrize("make", [Aws, Gcp, Azure])
@pytest.mark.parametrize("how", BAD)
def test_a_bad_server_is_an_error_of_one_kind_within_the_time(make: Callable[..., Cloud], how: str):
    with answering(BAD[how]) as address, pytest.raises(MetadataError) as error:
        make(address, timeout_s=0.2 if how in ENDLESS else 60.0).look()
    assert ("hasn't answered in" in str(error.value)) == (how in ENDLESS)


def test_an_address_where_nobody_listens_is_an_error_of_the_same_kind():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for make in (Aws, Gcp, Azure):
        with pytest.raises(MetadataError, match="can't be asked: Connection refused"):
            make(address).look()


VALUES = st.recursive(
    st.none() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["Events", "EventType", "Resources", "NotBefore", "action", "time"]), inner)
    ),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | VALUES.map(json.dumps))
def test_no_document_does_more_than_raise_that_error(aws: Server, azure: Server, text: str):
    (aws.folder / "instance-action").write_text(text, encoding="utf-8", errors="replace")
    (azure.folder / "events").write_text(text, encoding="utf-8", errors="replace")
    for cloud in (Aws(aws.address), Azure(azure.address)):
        with suppress(MetadataError):
            assert cloud.look() is None


# The watch


class Script:
    """A cloud that says one thing after the other, then nothing."""

    name = "Cloud"
    interval_s = 0.0

    def __init__(self, *says: Notice | MetadataError | None) -> None:
        self._says = list(says)
        self.acknowledged: list[Notice] = []

    def look(self) -> Notice | None:
        if not self._says:
            sleep(0.01)
            return None
        said = self._says.pop(0)
        if isinstance(said, MetadataError):
            raise said
        return said

    def acknowledge(self, notice: Notice) -> None:
        self.acknowledged.append(notice)

    def wait(self) -> None:
        deadline = monotonic() + 10
        while self._says and monotonic() < deadline:
            sleep(0.01)
        sleep(0.05)


def notice(deadline: float | None = NOON) -> Notice:
    return Notice(cloud="Cloud", what="preemption", deadline=deadline)


def test_a_notice_is_handed_on_once_and_again_when_its_time_is_another():
    cloud = Script(None, notice(None), notice(None), notice(), notice())
    said: list[Notice] = []
    watch = NoticeWatch(cloud, said.append)
    cloud.wait()
    watch.acknowledge()
    watch.close()
    assert said == [notice(None), notice()]
    assert cloud.acknowledged == [notice()]


def test_what_ray_could_not_be_told_is_told_again():
    said: list[Notice] = []

    def announce(notice: Notice) -> None:
        said.append(notice)
        if len(said) < 3:
            raise ClusterError("Ray's head is away")

    cloud = Script(*[notice()] * 5)
    watch = NoticeWatch(cloud, announce, retry_s=0.0)
    cloud.wait()
    watch.close()
    assert said == [notice()] * 3


def test_a_server_that_comes_and_goes_is_logged_once_each_time(caplog: pytest.LogCaptureFixture):
    away = MetadataError("http://x hasn't answered in 5 s")
    cloud = Script(away, away, away, None, None, away, away, notice())
    said: list[Notice] = []
    with caplog.at_level(logging.INFO):
        watch = NoticeWatch(cloud, said.append, retry_s=0.0)
        cloud.wait()
        watch.close()
    assert said == [notice()]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "no notices from Cloud: http://x hasn't answered in 5 s; tried again every 0 s",
        "no notices from Cloud: http://x hasn't answered in 5 s; tried again every 0 s",
        "announced: Cloud preemption",
    ]


def test_a_closed_watch_hands_nothing_on():
    class Slow(Script):
        def look(self) -> Notice | None:
            sleep(0.2)
            return notice()

    said: list[Notice] = []
    watch = NoticeWatch(Slow(), said.append)
    sleep(0.05)
    watch.close()
    sleep(0.3)
    assert said == []


# Which cloud


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [
        ("sys_vendor", "Amazon EC2\n", Aws),
        ("bios_version", "4.11.amazon\n", Aws),
        ("product_name", "Google Compute Engine\n", Gcp),
        ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", Azure),
        ("sys_vendor", "Microsoft Corporation\n", type(None)),  # Hyper-V, too
        ("sys_vendor", "QEMU\n", type(None)),
    ],
)
def test_a_machine_is_known_by_its_firmware(tmp_path: Path, file: str, text: str, kind: type):
    (tmp_path / file).write_text(text)
    assert type(find_cloud({}, tmp_path)) is kind


def test_a_machine_without_firmware_to_read_is_in_no_cloud(tmp_path: Path):
    assert find_cloud({}, tmp_path / "nothing") is None


def test_the_environment_says_it_better(aws: Server, tmp_path: Path):
    (tmp_path / "product_name").write_text("Google Compute Engine")
    assert find_cloud({"DNCTL_CLOUD": "none"}, tmp_path) is None
    cloud = find_cloud({"DNCTL_CLOUD": f"aws={aws.address}/"}, tmp_path)
    assert isinstance(cloud, Aws)
    assert cloud.look() is None
    assert aws.asked


def test_the_doctor_says_whether_notices_would_be_heard(aws: Server, monkeypatch: pytest.MonkeyPatch):
    def found() -> list[str]:
        return [f"{finding.verdict}: {finding.found}" for finding in doctor._cloud()]

    monkeypatch.setenv("DNCTL_CLOUD", "none")
    assert found() == []
    monkeypatch.setenv("DNCTL_CLOUD", f"aws={aws.address}")
    assert found() == ["ok: a machine of AWS: it answers, and has announced nothing"]
    (aws.folder / "rebalance").write_text("{}")
    assert found() == ["note: a machine of AWS: announced: AWS rebalance recommendation"]
    monkeypatch.setenv("DNCTL_CLOUD", "aws=http://127.0.0.1:9")
    assert found() == ["note: http://127.0.0.1:9/latest/api/token can't be asked: Connection refused"]
    monkeypatch.setenv("DNCTL_CLOUD", "ibm")
    assert found()[0].startswith("note: DNCTL_CLOUD='ibm' names no cloud")


@pytest.mark.parametrize("said", ["ibm", "aws=ftp://x", "aws=http://", "none=http://x", "aws=http://x:port", "aws=x"])
def test_a_cloud_that_is_none_is_refused_with_those_there_are(said: str):
    with pytest.raises(UsageError, match=r"DNCTL_CLOUD='.*allowed: aws, gcp, azure or none"):
        find_cloud({"DNCTL_CLOUD": said})
