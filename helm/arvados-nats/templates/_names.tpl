{{- /*
Copyright (C) The Arvados-NATS Authors

SPDX-License-Identifier: Apache-2.0
*/ -}}
{{- define "arvados-nats.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Leaves room for the longest suffix: names end at 63. */ -}}
{{- define "arvados-nats.fullname" -}}
{{- $name := include "arvados-nats.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Given (root, component): labels that never change. */ -}}
{{- define "arvados-nats.selectorLabels" -}}
app.kubernetes.io/name: {{ include "arvados-nats.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "arvados-nats.labels" -}}
{{ include "arvados-nats.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: arvados
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "arvados-nats.serviceAccount" -}}
{{- $values := index .root.Values .component -}}
{{- $own := printf "%s-%s" (include "arvados-nats.fullname" .root) .component -}}
{{- $values.serviceAccount.name | default (ternary $own "default" $values.serviceAccount.create) }}
{{- end }}

{{- define "arvados-nats.nkeysSecret" -}}
{{- .Values.global.nkeysSecret | default (printf "%s-nkeys" .Release.Name) }}
{{- end }}

{{- /* As the nats chart names its service. */ -}}
{{- define "arvados-nats.natsFullname" -}}
{{- $nats := .Values.nats -}}
{{- $name := $nats.nameOverride | default "nats" -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $nats.fullnameOverride | default $full | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "arvados-nats.natsURL" -}}
{{- if .Values.nats.enabled -}}
nats://{{ ((.Values.nats.service).name) | default (include "arvados-nats.natsFullname" .) }}:{{ include "arvados-nats.natsPort" . }}
{{- else -}}
{{ .Values.natsClient.url }}
{{- end }}
{{- end }}

{{- define "arvados-nats.image" -}}
{{- $image := .Values.image -}}
{{- $registry := .Values.global.imageRegistry | default $image.registry -}}
{{- $name := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* The host of wsproxy.externalURL. */ -}}
{{- define "arvados-nats.externalHost" -}}
{{- regexReplaceAll "^wss?://([^/:]+).*$" .Values.wsproxy.externalURL "${1}" }}
{{- end }}
