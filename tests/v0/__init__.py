# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Protocol v0 as arvados-ws' own suite and its clients expect it: black box, by URL.

`V0_SERVER=arvados-ws` runs the same tests against the real arvados-ws on the same pretend cluster
(`ARVADOS_WS` names its program, else it is built with Go: bench/peers); what is marked `ours` is
then left out. docs/compatibility.md names each difference.
"""
