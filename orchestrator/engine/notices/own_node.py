"""The watch over the node that this process is on."""

import logging
import os

import ray
from ray.exceptions import RayError

from orchestrator.engine import draining, nodes
from orchestrator.engine.notices.clouds import find_cloud
from orchestrator.engine.notices.notice import Notice
from orchestrator.engine.notices.watch import NoticeWatch
from orchestrator.errors import UsageError

_log = logging.getLogger(__name__)


def watch_own_node() -> NoticeWatch | None:
    """Hand every notice for this node to Ray, from a process of Ray's; None where there is no cloud."""
    try:
        cloud = find_cloud(os.environ)
    except UsageError as error:  # of a node: no reason for a run to end
        _log.warning("%s; no notices are looked for", error)
        return None
    if cloud is None:
        return None
    context = ray.get_runtime_context()
    gcs_address, node = context.gcs_address, context.get_node_id()

    def announce(notice: Notice) -> None:
        draining.announce(gcs_address, node, cause=str(notice), deadline=notice.deadline)

    return NoticeWatch(cloud, announce)


def acknowledge(watch: NoticeWatch) -> None:
    """Let the cloud begin with what it announced, now that this run has saved; not while other jobs work here."""
    try:
        if not nodes.has_other_work_here():
            watch.acknowledge()
    except (RayError, RuntimeError) as error:
        _log.warning("can't see what else works on this node, so the cloud gets no answer: %s", error)
