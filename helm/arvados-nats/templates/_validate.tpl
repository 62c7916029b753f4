{{- /*
Copyright (C) The Arvados-NATS Authors

SPDX-License-Identifier: Apache-2.0
*/ -}}
{{- /* Combinations that a schema can not refuse; each message says what to set. */ -}}
{{- define "arvados-nats.validate" -}}
{{- $ws := .Values.wsproxy -}}
{{- $_ := required "arvados.clusterID: set it to the five letters or digits of your cluster" .Values.arvados.clusterID -}}
{{- $_ := required "arvados.apiHost: set it to the controller's host name" .Values.arvados.apiHost -}}
{{- $_ := required "postgresql.existingSecret: name the Secret with the connection string" .Values.postgresql.existingSecret -}}
{{- if not .Values.nats.enabled -}}
{{- $_ := required "natsClient.url: set it, since nats.enabled is false" .Values.natsClient.url -}}
{{- else -}}
{{- /* A StatefulSet's name and 11 characters make a label of 63. */ -}}
{{- if gt (len (include "arvados-nats.natsFullname" .)) 52 -}}
{{- fail "nats.fullnameOverride: set a name of at most 52 characters, this release's is too long for NATS" -}}
{{- end -}}
{{- $servers := ternary (int .Values.nats.config.cluster.replicas) 1 .Values.nats.config.cluster.enabled -}}
{{- range $key, $copies := .Values.publishers.settings -}}
{{- if and (hasSuffix "Replicas" $key) (gt (int $copies) $servers) -}}
{{- fail (printf "publishers.settings.%s: %d copies need as many NATS servers, there are %d" $key (int $copies) $servers) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $ws.ingress.enabled $ws.httpRoute.enabled -}}
{{- fail "wsproxy: enable ingress or httpRoute, not both" -}}
{{- end -}}
{{- if or $ws.ingress.enabled $ws.httpRoute.enabled -}}
{{- $_ := required "wsproxy.externalURL: ingress and httpRoute take the host from it" $ws.externalURL -}}
{{- end -}}
{{- if and $ws.httpRoute.enabled (not $ws.httpRoute.parentRefs) -}}
{{- fail "wsproxy.httpRoute.parentRefs: name the gateway" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.arvados.existingSecret) -}}
{{- fail "metrics.serviceMonitor: metrics need the ManagementToken, set arvados.existingSecret" -}}
{{- end -}}
{{- range $name := list "authcallout" "publishers" "wsproxy" -}}
{{- $values := index $.Values $name -}}
{{- if and $values.autoscaling.enabled $values.autoscaling.cpu (not (($values.resources).requests).cpu) -}}
{{- fail (printf "%s.resources.requests.cpu: autoscaling by CPU needs it" $name) -}}
{{- end -}}
{{- end -}}
{{- end }}
