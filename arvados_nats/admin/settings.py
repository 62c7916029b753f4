# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings of the checks: the services' own, so that what is looked at is what they use."""

from __future__ import annotations

from pydantic import SecretStr

from arvados_nats.service.settings import ArvadosSettings, NatsSettings, PostgresSettings


class Settings(NatsSettings, ArvadosSettings, PostgresSettings):
    """Where everything is; what is not set is not looked at."""

    log_token: SecretStr = SecretStr("")
    """As the publishers have it: without it nobody reads container logs."""
