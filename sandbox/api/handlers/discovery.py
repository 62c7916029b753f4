# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What clients learn the cluster by: the discovery document, and the exported configuration."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from sandbox.model.config import ClusterConfig


@functools.cache
def _recorded() -> str:
    return resources.files("sandbox").joinpath("data/discovery.json").read_text(encoding="utf-8")


def document(host: str, config: ClusterConfig, websocket_url: str | None) -> dict[str, Any]:
    """The document for a server at `host` (name and port); None leaves its own websocket URL."""
    text = _recorded().replace("{host}", host).replace("{cluster_id}", config.cluster_id)
    found: dict[str, Any] = json.loads(text)
    found["packageVersion"] = f"{config.release}.0-1"
    if websocket_url is not None:
        found["websocketUrl"] = websocket_url
    return found


def exported_config(host: str, config: ClusterConfig, websocket_url: str | None) -> dict[str, Any]:
    """What arvados-controller shows of its configuration, as far as clients look at it.

    The Python SDK reads StorageClasses, Workbench the service URLs. What a controller keeps to
    itself (lib/config/export.go) is not here: of Users neither RoleGroupsVisibleToAll nor
    ActivatedUsersAreVisibleToOthers.
    """
    return {
        "ClusterID": config.cluster_id,
        "API": {"MaxItemsPerResponse": 1000, "SendTimeout": "1m0s"},
        "Collections": {
            "BlobSigning": False,
            "CollectionVersioning": config.collection_versioning,
            "DefaultTrashLifetime": f"{int(config.default_trash_lifetime.total_seconds())}s",
        },
        "Services": {
            "Controller": {"ExternalURL": f"https://{host}/"},
            "Websocket": {"ExternalURL": websocket_url or f"wss://{host}/websocket"},
            "Workbench2": {"ExternalURL": config.workbench_url},
        },
        "StorageClasses": {"default": {"Default": True, "Priority": 0}},
        "Users": {"AnonymousUserToken": "", "NewUsersAreActive": config.new_users_are_active},
    }
