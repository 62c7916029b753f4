{{- /*
Copyright (C) The Arvados-NATS Authors

SPDX-License-Identifier: Apache-2.0
*/ -}}
{{- /* Rules of NetworkPolicies; an empty list of addresses allows any. */ -}}
{{- define "arvados-nats.egressDNS" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{- define "arvados-nats.egressNATS" -}}
{{- if .Values.nats.enabled -}}
- ports: [{port: {{ include "arvados-nats.natsPort" . }}, protocol: TCP}]
  to:
    - podSelector:
        matchLabels: {app.kubernetes.io/component: nats, app.kubernetes.io/instance: {{ .Release.Name }}}
{{- else -}}
{{- $urls := splitList "," .Values.natsClient.url }}
- ports:
    {{- if .Values.natsClient.port }}
    - {port: {{ .Values.natsClient.port }}, protocol: TCP}
    {{- else }}
    {{- range $port := include "arvados-nats.ports" $urls | splitList " " | uniq }}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{- /* Of the servers of this release. */ -}}
{{- define "arvados-nats.natsPort" -}}
{{ .Values.nats.config.nats.port }}
{{- end }}

{{- /* Where wsproxy has its sockets, in its pod. */ -}}
{{- define "arvados-nats.socketsPort" -}}
8000
{{- end }}

{{- /* Ports of NATS servers' addresses, separated by blanks. */ -}}
{{- define "arvados-nats.ports" -}}
{{- range $index, $url := . }}{{ if $index }} {{ end }}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" (trim $url)) | default "4222" }}
{{- end }}
{{- end }}

{{- /* Given (cidrs, ports). */ -}}
{{- define "arvados-nats.egressTo" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  {{- end }}
{{- end }}

{{- /* Given (namespace, port name). */ -}}
{{- define "arvados-nats.ingressFrom" -}}
- ports: [{port: {{ .port }}, protocol: TCP}]
  {{- with .namespace }}
  from:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ . }}}
  {{- end }}
{{- end }}

{{- define "arvados-nats.apiPort" -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" .Values.arvados.apiHost) | default "443" }}
{{- end }}
