{{/* A part's name: RELEASE-PART. A StatefulSet's may have 52 characters, for its pods' labels add to it, and the longest
     part takes 23 and a hyphen; so a longer release's name is cut, all parts alike, and told apart by its digest. */}}
{{- define "lorry.name" -}}
{{- $release := .root.Release.Name | replace "." "-" }}
{{- if gt (len $release) 28 }}
{{- $release = printf "%s-%s" ($release | trunc 19 | trimSuffix "-") (.root.Release.Name | sha256sum | trunc 8) }}
{{- end }}
{{- printf "%s-%s" $release .part }}
{{- end }}

{{- define "lorry.selector" -}}
app.kubernetes.io/name: lorry
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "lorry.labels" -}}
{{ include "lorry.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* metadata of a part; `suffix` of its second object of a kind */}}
{{- define "lorry.metadata" -}}
name: {{ include "lorry.name" . }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "lorry.labels" . | nindent 2 }}
{{- end }}

{{- define "lorry.image" -}}
{{- $image := .root.Values.image -}}
{{ with $image.registry }}{{ . }}/{{ end }}lorry/{{ .image }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ with get $image.digests .image }}@{{ . }}{{ end }}
{{- end }}

{{/* what every pod has in common; ours, and Envoy and the bundled parts with their own users */}}
{{- define "lorry.pod" -}}
automountServiceAccountToken: false
# Kubernetes would tell every pod of Services in variables, LORRY_REGISTRY_PORT=tcp://… of one called lorry-registry:
# settings have the same names.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user | default 10001 }}
  runAsGroup: {{ .user | default 10001 }}
  fsGroup: {{ .user | default 10001 }}
  # Large volumes would be walked through at every start otherwise.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .values }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* replicas of a part lie on different nodes where there are some */}}
{{- define "lorry.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "lorry.selector" . | nindent 8 }}
{{- end }}

{{- define "lorry.container" -}}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "lorry.ours" -}}
image: {{ include "lorry.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{ include "lorry.container" . }}
{{- end }}

{{/* a value as settings read it: Helm has every number as a fraction, and writes 33554432 as 3.3554432e+07 */}}
{{- define "lorry.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "lorry.settings" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ include "lorry.text" $value | quote }}}
{{- end }}
{{- end }}

{{- define "lorry.secret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.secrets | quote }}, key: {{ .key }}}
{{- end }}

{{- define "lorry.databaseEnv" -}}
{{ include "lorry.secret" (dict "root" . "name" "LORRY_DATABASE_URL" "key" "database-url") }}
{{- end }}

{{/* the object store's address; nothing for Amazon's own */}}
{{- define "lorry.store" -}}
{{- if .Values.bundled.objects.enabled }}{{ include "lorry.url" (dict "root" . "part" "objects" "port" 8333) }}{{ else }}{{ .Values.s3.endpoint }}{{ end }}
{{- end }}

{{- define "lorry.storeEnv" -}}
- {name: LORRY_S3_BUCKET, value: {{ .Values.s3.bucket | quote }}}
- {name: LORRY_S3_REGION, value: {{ .Values.s3.region | quote }}}
{{- with include "lorry.store" . }}
- {name: LORRY_S3_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- if .Values.s3.keys }}
{{ include "lorry.secret" (dict "root" . "name" "LORRY_S3_ACCESS_KEY_ID" "key" "s3-access-key-id") }}
{{ include "lorry.secret" (dict "root" . "name" "LORRY_S3_SECRET_ACCESS_KEY" "key" "s3-secret-access-key") }}
{{- end }}
{{- end }}

{{- define "lorry.registryEnv" -}}
- {name: LORRY_REGISTRY_URL, value: "http://{{ include "lorry.name" (dict "root" . "part" "registry") }}:8081"}
{{- end }}

{{/* what asking engines for adapters takes, and results of batches with it: of the gateway and of extraction workers */}}
{{- define "lorry.askingEnv" -}}
{{- $root := . }}
{{- $urls := dict }}
{{- range include "lorry.pools" . | fromJsonArray }}
{{- $url := include "lorry.url" (dict "root" $root "part" .door "port" 8100) }}
{{- if not .base }}
- {name: LORRY_ENGINE_URL, value: {{ $url }}}
{{- else if .routed }}
{{- $_ := set $urls .base $url }}
{{- end }}
{{- end }}
{{- with $urls }}
- {name: LORRY_BASE_ENGINE_URLS, value: {{ toJson . | quote }}}
{{- end }}
{{ include "lorry.databaseEnv" . }}
{{ include "lorry.storeEnv" . }}
{{ include "lorry.registryEnv" . }}
{{ include "lorry.secret" (dict "root" . "name" "LORRY_REGISTRY_TOKEN" "key" "registry-token") }}
{{ include "lorry.secret" (dict "root" . "name" "LORRY_ENGINE_TOKEN" "key" "engine-token") }}
{{- if .Values.extractors.webhookKey }}
{{ include "lorry.secret" (dict "root" . "name" "LORRY_EXTRACTION_WEBHOOK_KEY" "key" "extraction-webhook-key") }}
{{- end }}
{{- end }}

{{- define "lorry.url" -}}
http://{{ include "lorry.name" . }}.{{ .root.Release.Namespace }}:{{ .port }}
{{- end }}

{{/* directory of a base model in a pod that mounts the claim at /base */}}
{{- define "lorry.base" -}}
{{ printf "/base/%s" . | trimSuffix "/" }}
{{- end }}

{{/* Every pool of engines, as JSON: the default one, and those of otherEngines, with the names of its part, of the Service
     to ask it by and of its cluster in Envoy; `base` is the id of another base, and empty for the default pool. */}}
{{- define "lorry.pools" -}}
{{- $root := . }}
{{- $door := ternary "envoy" "engine" .Values.envoy.enabled }}
{{- $places := int (include "lorry.engines" .) }}
{{- $pools := list (dict "part" "engine" "door" $door "cluster" "engines" "base" "" "path" .Values.base.path "places" $places "values" .Values.engines) }}
{{- range $name, $own := .Values.otherEngines }}
{{- $values := mergeOverwrite (deepCopy $root.Values.engines) $own (dict "autoscaling" (dict "enabled" false)) }}
{{- $base := $own.base | default (base $own.path) }}
{{- $part := printf "engine-%s" $name }}
{{- $routed := ternary $own.routed true (hasKey $own "routed") }}
{{- $pools = append $pools (dict "part" $part "door" (printf "%s-%s" $door $name) "cluster" (printf "engines-%s" $name) "base" $base "path" $own.path "routed" $routed "places" (int $values.replicas) "values" $values) }}
{{- end }}
{{- toJson $pools }}
{{- end }}

{{/* how many engines there may ever be: as many have a place on Envoy's ring */}}
{{- define "lorry.engines" -}}
{{- with .Values.engines }}{{ if .autoscaling.enabled }}{{ max .replicas .autoscaling.maxReplicas }}{{ else }}{{ .replicas }}{{ end }}{{ end }}
{{- end }}

{{/* a quantity of Kubernetes' in GiB */}}
{{- define "lorry.gib" -}}
{{- $factors := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 }}
{{- divf (mulf (regexFind "^[0-9.]+" . | float64) (get $factors (regexFind "[A-Za-z]*$" .))) 1073741824 }}
{{- end }}

{{- define "lorry.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "lorry.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "lorry.selector" . | nindent 6 }}
{{- end }}
