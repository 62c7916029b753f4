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
{{- include "arvados-nats.validateStore" . -}}
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
{{- $budget := get $ws.settings "queueBudget" | default 268435456 -}}
{{- $limit := dig "limits" "memory" "" $ws.resources -}}
{{- if and $limit (lt (include "arvados-nats.bytes" $limit | int64) (add (int64 $budget) 268435456)) -}}
{{- fail (printf "wsproxy.resources.limits.memory: %s is less than wsproxy.settings.queueBudget (%d) and 256Mi more" (toString $limit) (int64 $budget)) -}}
{{- end -}}
{{- if eq (int .Values.metrics.port) (include "arvados-nats.socketsPort" . | int) -}}
{{- fail (printf "metrics.port: %d is where wsproxy has its sockets" (int .Values.metrics.port)) -}}
{{- end -}}
{{- range $name := list "authcallout" "publishers" "wsproxy" -}}
{{- $values := index $.Values $name -}}
{{- if and $values.autoscaling.enabled (gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas %d is more than maxReplicas %d" $name (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- range $kind, $wanted := ($values.resources).requests -}}
{{- $most := dig "limits" $kind "" $values.resources -}}
{{- if and $most (eq $kind "memory") (gt (include "arvados-nats.bytes" $wanted | int64) (include "arvados-nats.bytes" $most | int64)) -}}
{{- fail (printf "%s.resources: a request of %s memory is more than the limit of %s" $name (toString $wanted) (toString $most)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.autoscaling.enabled $values.autoscaling.cpu (not (($values.resources).requests).cpu) -}}
{{- fail (printf "%s.resources.requests.cpu: autoscaling by CPU needs it" $name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Streams within the server, the server within its volume and its memory. */ -}}
{{- define "arvados-nats.validateStore" -}}
{{- $store := .Values.nats.config.jetstream.fileStore -}}
{{- $most := include "arvados-nats.bytes" ($store.maxSize | default $store.pvc.size) | int64 -}}
{{- if and $store.pvc.enabled (gt $most (include "arvados-nats.bytes" $store.pvc.size | int64)) -}}
{{- fail (printf "nats.config.jetstream.fileStore.maxSize: %s is more than the volume of %s" $store.maxSize $store.pvc.size) -}}
{{- end -}}
{{- $settings := .Values.publishers.settings -}}
{{- $wanted := 536870912 -}}
{{- $copied := $wanted -}}
{{- range $name, $size := dict "events" 2147483648 "logs" 8589934592 "systemLogs" 1073741824 -}}
{{- $size = get $settings (printf "%sMaxBytes" $name) | default $size | int64 -}}
{{- $wanted = add $wanted $size -}}
{{- $copied = add $copied (mul $size (get $settings (printf "%sReplicas" $name) | default 1 | int64)) -}}
{{- end -}}
{{- if gt $wanted $most -}}
{{- fail (printf "publishers.settings: streams of %d bytes do not fit nats.config.jetstream.fileStore.maxSize, %s" $wanted (toString ($store.maxSize | default $store.pvc.size))) -}}
{{- end -}}
{{- $account := .Values.nats.config.merge.accounts.ARVADOS.jetstream.max_file -}}
{{- if gt $copied (include "arvados-nats.bytes" $account | int64) -}}
{{- fail (printf "publishers.settings: streams of %d bytes with all copies do not fit nats.config.merge.accounts.ARVADOS.jetstream.max_file, %s" $copied $account) -}}
{{- end -}}
{{- $memory := dig "resources" "limits" "memory" "" .Values.nats.container.merge -}}
{{- $go := get .Values.nats.container.env "GOMEMLIMIT" -}}
{{- if and $memory $go (kindIs "string" $go) (ge (include "arvados-nats.bytes" $go | int64) (include "arvados-nats.bytes" $memory | int64)) -}}
{{- fail (printf "nats.container.env.GOMEMLIMIT: %s leaves nothing of the memory limit, %s" $go (toString $memory)) -}}
{{- end -}}
{{- end }}

{{- /* Of a quantity as Kubernetes, NATS or Go writes it. */ -}}
{{- define "arvados-nats.bytes" -}}
{{- $text := include "arvados-nats.text" . | trimPrefix "<<" | trimSuffix ">>" | trim -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $power := index (dict "" 0 "K" 1 "M" 2 "G" 3 "T" 4 "P" 5) (upper (trunc 1 $unit)) -}}
{{- if kindIs "invalid" $power -}}
{{- fail (printf "%s: a size is a number and Ki, Mi, Gi or Ti" $text) -}}
{{- end -}}
{{- $size := trimSuffix $unit $text | float64 -}}
{{- range until (int $power) -}}
{{- $size = mulf $size (ternary 1000 1024 (eq (len $unit) 1)) -}}
{{- end -}}
{{- int64 $size -}}
{{- end }}
