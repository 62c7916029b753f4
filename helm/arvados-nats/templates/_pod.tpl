{{- /*
Copyright (C) The Arvados-NATS Authors

SPDX-License-Identifier: Apache-2.0
*/ -}}
{{- /* Which seeds a component logs in and signs with: the names of arvados_nats/service/keys.py. */ -}}
{{- define "arvados-nats.seeds" -}}
{{- $seeds := dict
  "authcallout" (list "callout" "callout-service" "sys" "issuer" "xkey" "system-logs")
  "publishers" (list "publisher")
  "wsproxy" (list "wsproxy") -}}
{{- index $seeds . | join " " }}
{{- end }}

{{- /* Seeds beside them while keys are replaced: the next one, and what was before. */ -}}
{{- define "arvados-nats.seedsBeside" -}}
{{- $seeds := dict
  "authcallout" (list "xkey.former" "issuer.former" "system-logs.former")
  "publishers" list
  "wsproxy" (list "wsproxy.next" "wsproxy.former") -}}
{{- index $seeds . | join " " }}
{{- end }}

{{- /* A setting as text: Helm makes numbers of values.yaml floats, and prints 1e+06. */ -}}
{{- define "arvados-nats.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end }}
{{- end }}

{{- /* Given (root, component): seconds from SIGTERM, or the preStop before it, to SIGKILL. */ -}}
{{- define "arvados-nats.gracePeriod" -}}
{{- $values := index .root.Values .component -}}
{{- $needed := 30 -}}
{{- if eq .component "wsproxy" -}}
{{- $needed = add $values.preStopSeconds $values.leisureSeconds $values.drainSeconds 10 -}}
{{- end -}}
{{- $given := $values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{ $needed }}
{{- else if lt (int $given) (int $needed) -}}
{{ fail (printf "%s.terminationGracePeriodSeconds: at least %d are needed for preStop, leisure, drain and 10 seconds more" .component (int $needed)) }}
{{- else -}}
{{ int $given }}
{{- end }}
{{- end }}

{{- define "arvados-nats.env" -}}
{{- $values := index .root.Values .component -}}
{{- with .root.Values -}}
- {name: ARVADOS_NATS_NATS_URL, value: {{ include "arvados-nats.natsURL" $.root | quote }}}
- {name: ARVADOS_NATS_KEYS_DIR, value: /etc/arvados-nats/keys}
- {name: ARVADOS_NATS_SECRETS_DIR, value: /etc/arvados-nats/secrets}
- {name: ARVADOS_NATS_OPS_LISTEN, value: {{ printf "%s:%d" .metrics.host (int .metrics.port) | quote }}}
- {name: ARVADOS_API_HOST, value: {{ .arvados.apiHost | quote }}}
{{- if .arvados.caBundle.existingConfigMap }}
- {name: ARVADOS_NATS_ARVADOS_CA_FILE, value: {{ printf "/etc/arvados-nats/ca/%s" .arvados.caBundle.key | quote }}}
{{- end }}
{{- if .arvados.insecureSkipVerify }}
- {name: ARVADOS_API_HOST_INSECURE, value: "true"}
{{- end }}
{{- end }}
{{- if eq .component "wsproxy" }}
- {name: ARVADOS_NATS_LISTEN, value: {{ printf "%s:%s" .root.Values.metrics.host (include "arvados-nats.socketsPort" .root) | quote }}}
- {name: ARVADOS_NATS_LEISURE_SECONDS, value: {{ include "arvados-nats.text" $values.leisureSeconds | quote }}}
- {name: ARVADOS_NATS_DRAIN_SECONDS, value: {{ include "arvados-nats.text" $values.drainSeconds | quote }}}
{{- end }}
{{- range $name, $value := $values.settings }}
- {name: ARVADOS_NATS_{{ snakecase $name | upper }}, value: {{ include "arvados-nats.text" $value | quote }}}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Secrets as files that are named like the variables they stand for. */ -}}
{{- define "arvados-nats.secrets" -}}
{{- with .root.Values -}}
{{- if .arvados.existingSecret }}
- secret:
    name: {{ .arvados.existingSecret }}
    items:
      {{- if eq $.component "publishers" }}
      - {key: {{ .arvados.keys.logToken }}, path: ARVADOS_NATS_LOG_TOKEN}
      {{- end }}
      - {key: {{ .arvados.keys.managementToken }}, path: ARVADOS_NATS_MANAGEMENT_TOKEN}
{{- end }}
{{- if eq $.component "publishers" }}
- secret:
    name: {{ .postgresql.existingSecret }}
    items: [{key: {{ .postgresql.key }}, path: ARVADOS_NATS_POSTGRES_DSN}]
{{- end }}
{{- end }}
{{- end }}

{{- define "arvados-nats.volumes" -}}
{{- $values := index .root.Values .component -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: keys
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "arvados-nats.nkeysSecret" .root }}
          items:
            {{- range splitList " " (include "arvados-nats.seeds" .component) }}
            - {key: {{ . }}.nk, path: {{ . }}.nk}
            {{- end }}
      {{- with include "arvados-nats.seedsBeside" .component }}
      - secret:
          name: {{ include "arvados-nats.nkeysSecret" $.root }}
          optional: true
          items:
            {{- range splitList " " . }}
            - {key: {{ . }}.nk, path: {{ . }}.nk}
            {{- end }}
      {{- end }}
- name: secrets
  projected:
    defaultMode: 0440
    sources: {{- include "arvados-nats.secrets" . | trim | default "[]" | nindent 6 }}
{{- with .root.Values.arvados.caBundle }}
{{- if .existingConfigMap }}
- name: ca
  configMap: {name: {{ .existingConfigMap }}}
{{- end }}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "arvados-nats.mounts" -}}
{{- $values := index .root.Values .component -}}
- {name: tmp, mountPath: /tmp}
- {name: keys, mountPath: /etc/arvados-nats/keys, readOnly: true}
- {name: secrets, mountPath: /etc/arvados-nats/secrets, readOnly: true}
{{- if .root.Values.arvados.caBundle.existingConfigMap }}
- {name: ca, mountPath: /etc/arvados-nats/ca, readOnly: true}
{{- end }}
{{- with $values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "arvados-nats.probe" -}}
httpGet: {path: {{ .path }}, port: http-metrics}
{{ toYaml .timing }}
{{- end }}

{{- define "arvados-nats.container" -}}
{{- $values := index .root.Values .component -}}
name: {{ .component }}
image: {{ include "arvados-nats.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ ternary (list "publishers" "run") (list .component) (eq .component "publishers") | toJson }}
env:
  {{- include "arvados-nats.env" . | nindent 2 }}
{{- with $values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: http-metrics, containerPort: {{ .root.Values.metrics.port }}}
  {{- if eq .component "wsproxy" }}
  - {name: http, containerPort: {{ include "arvados-nats.socketsPort" .root }}}
  {{- end }}
{{- if and (eq .component "wsproxy") (gt (int $values.preStopSeconds) 0) }}
lifecycle:
  preStop: {sleep: {seconds: {{ $values.preStopSeconds }}}}
{{- end }}
startupProbe:
  {{- include "arvados-nats.probe" (dict "path" "/livez" "timing" $values.probes.startup) | nindent 2 }}
livenessProbe:
  {{- include "arvados-nats.probe" (dict "path" "/livez" "timing" $values.probes.liveness) | nindent 2 }}
readinessProbe:
  {{- include "arvados-nats.probe" (dict "path" "/readyz" "timing" $values.probes.readiness) | nindent 2 }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "arvados-nats.mounts" . | nindent 2 }}
{{- end }}

{{- define "arvados-nats.spread" -}}
- topologyKey: kubernetes.io/hostname
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "arvados-nats.selectorLabels" . | nindent 6 }}
{{- end }}

{{- /* Given (root, component): the pod's spec. */ -}}
{{- define "arvados-nats.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "arvados-nats.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "arvados-nats.gracePeriod" . }}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with $values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - {{- include "arvados-nats.container" . | nindent 4 }}
  {{- with $values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  {{- include "arvados-nats.volumes" . | nindent 2 }}
topologySpreadConstraints:
  {{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  {{- include "arvados-nats.spread" . | nindent 2 }}
  {{- end }}
{{- range $key := list "hostAliases" "dnsConfig" "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
{{- with index $values $key }}
{{ $key }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
