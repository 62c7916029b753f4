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
- ports: [{port: 4222, protocol: TCP}]
  to:
    - podSelector:
        matchLabels: {app.kubernetes.io/component: nats, app.kubernetes.io/instance: {{ .Release.Name }}}
{{- else -}}
- ports: [{port: {{ .Values.natsClient.port }}, protocol: TCP}]
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
