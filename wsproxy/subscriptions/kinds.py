# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The subscription that a target asks for."""

from __future__ import annotations

from arvados_nats.protocol_v1.requests import EventsTarget, LogTarget, Target
from wsproxy.services import Services
from wsproxy.subscriptions.event_subscription import EventSubscription
from wsproxy.subscriptions.log_subscription import LogSubscription
from wsproxy.subscriptions.object_subscription import ObjectSubscription
from wsproxy.subscriptions.subscription import EventClient, Subscription


def subscription(
    services: Services, client: EventClient, id: str, target: Target, *, present: bool = True
) -> Subscription:
    """One that is not started; BadInput if the target makes no sense.

    `present`: begin with the object as it is now.
    """
    if isinstance(target, LogTarget):
        return LogSubscription(services, client, id, target)
    if isinstance(target, EventsTarget):
        return EventSubscription(services, client, id, target)
    return ObjectSubscription(services, client, id, target, present=present)
