"""Options of subscriptions: whether the broker knows them, and the client's subscription to reports of what
is dropped because of them. Never subscribes for the user.
"""

from __future__ import annotations

import asyncio

from elbus_client.connection import topic_operations
from elbus_client.connection.core import Core
from elbus_client.connection.subscription_state import FilterUser
from elbus_client.errors import AccessDeniedError, DisconnectedError, NotSupportedError, RefusedError
from elbus_client.rpc import calling
from elbus_client.wire.constants import MISSED_TOPIC

#: Features because of which publications can be dropped for the client.
LOSING = frozenset({"latest", "every", "lossy"})
#: The feature of reporting them.
REPORTS = "missed"


async def require_features(core: Core, names: list[str]) -> None:
    """Checks that the broker has these features, before filters that need them are sent. If it can drop
    publications because of them and reports that, the client is subscribed to the reports. Without a
    connection everything is accepted if the client reconnects.
    """
    try:
        known = await calling.features(core)
    except DisconnectedError:
        if core.settings.reconnect is None or core.closing or core.ended is not None:
            raise
        return
    for name in names:
        if name not in known:
            raise NotSupportedError(name)
    if REPORTS in known and not LOSING.isdisjoint(names):
        await _subscribe_to_reports(core)


async def _subscribe_to_reports(core: Core) -> None:
    """Subscribes the client to reports for its own use, once. If the broker refuses that, nothing is
    reported.
    """
    task = core.reports
    if task is None or task.done():
        if core.subscriptions.has_gaps:
            return
        core.demux.expect_reports()
        # a task: several subscriptions wait for it, and each of them can be cancelled
        subscribing = topic_operations.subscribe(core, [MISSED_TOPIC], FilterUser.GAPS)
        task = core.reports = core.loop.create_task(subscribing)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.shield(task)
    except (AccessDeniedError, RefusedError):
        pass
