-- Copyright (C) The Arvados-NATS Authors
--
-- SPDX-License-Identifier: Apache-2.0
--
-- Written by tools/make_chart.py; do not edit.
GRANT SELECT ON logs, materialized_permissions, trashed_groups, frozen_groups, users, groups, links, collections, workflows TO arvados_nats;
GRANT SELECT (uuid, owner_uuid, created_at, modified_at, name, state, requesting_container_uuid, container_uuid, container_count, priority, log_uuid, output_uuid, cumulative_cost, xmin) ON container_requests TO arvados_nats;
GRANT SELECT (uuid, owner_uuid, created_at, modified_at, state, priority, exit_code, progress, output, log, locked_by_uuid, lock_count, auth_uuid, started_at, finished_at, runtime_status, cost, gateway_address, scheduling_parameters, runtime_constraints, xmin) ON containers TO arvados_nats;
GRANT SELECT (uuid, user_id, scopes, expires_at, xmin) ON api_client_authorizations TO arvados_nats;
GRANT SELECT (refreshes_at) ON api_client_authorizations TO arvados_nats; -- Arvados 3.1 and newer
