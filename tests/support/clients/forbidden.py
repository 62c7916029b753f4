# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What no user may subscribe to or publish on, whether they listen or ask."""

from __future__ import annotations

FORBIDDEN_SUBSCRIPTIONS = (
    ">",
    "arvados.>",
    "arvados.live.>",
    "arvados.live.*.*.event.>",
    "arvados.stored.>",
    "arvados.events.>",
    "arvados.logs.>",
    "arvados.grants.>",
    "arvados.tokens.>",
    "_INBOX.>",
    "_INBOX_zzzzz-gj3su-000000000000001.>",
    "$SYS.>",
    "$SYS.REQ.USER.AUTH",
    "$SYS.ACCOUNT.USERS.CONNECT",
    "$JS.>",
    "arvados.live.{other}.>",
)
FORBIDDEN_PUBLISHES = (
    "arvados.events.collection.x.update",
    "arvados.stored.events.collection.x.update",
    "arvados.logs.x.stdout_txt",
    "arvados.live.{alice}.x.event.collection.x.update",
    "arvados.grants.changed.{alice}",
    "arvados.tokens.gone.{alice}",
    "$JS.API.STREAM.INFO.ARVADOS_EVENTS",
    "$JS.API.STREAM.NAMES",
    "$JS.API.CONSUMER.CREATE.ARVADOS_EVENTS.x.arvados.events.>",
    "$JS.API.DIRECT.GET.ARVADOS_EVENTS",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "_INBOX_zzzzz-gj3su-000000000000001.x",
)
