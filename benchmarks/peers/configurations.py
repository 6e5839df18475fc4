"""Configurations of the peers: each checks a key, counts a limit where it can, and proxies HTTP and WebSockets."""

from __future__ import annotations

UPSTREAM = """
worker_processes 1; daemon off; pid {folder}/upstream.pid; error_log {folder}/upstream.log;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; client_body_temp_path {folder}/b;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  open_file_cache max=10; root {folder}/files;
  server {{ listen 127.0.0.1:{port} backlog=4096; default_type application/json;
    location /quotes/ {{ return 200 '{answer}'; }}
    location /traced/ {{ if ($http_traceparent = "") {{ return 400; }} return 200 '{answer}'; }}
    location /orders/ {{ if ($content_length != {posted}) {{ return 400; }} return 200 '{answer}'; }}
    location /status {{ stub_status; }} }} }}
"""

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; client_body_temp_path {folder}/b;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_x_api_key $consumer {{ default ""; "{key}" bench; }}
  limit_req_zone $consumer zone=all:1m rate=1000000r/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    if ($consumer = "") {{ return 401; }}
    location /ws {{ limit_req zone=all burst=100000 nodelay; proxy_http_version 1.1; proxy_read_timeout 1h;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
      proxy_pass http://127.0.0.1:{echo}; }}
    location / {{ limit_req zone=all burst=100000 nodelay; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Consumer $consumer; proxy_pass http://up; }} }} }}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: false
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{path: "/ws"}}, route: {{cluster: echo, timeout: 0s}}}}
              - {{match: {{prefix: "/"}}, route: {{cluster: up}}}}
          http_filters:
{authentication}
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: limit
              token_bucket: {{max_tokens: 100000000, tokens_per_fill: 100000000, fill_interval: 1s}}
              filter_enabled: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
              filter_enforced: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STATIC
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]
  - name: echo
    type: STATIC
    load_assignment:
      cluster_name: echo
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {echo}}}}}}}}}]}}]
"""
ENVOY_KEY = """
          - name: envoy.filters.http.api_key_auth
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth
              credentials: [{{key: {key}, client: bench}}]
              key_sources: [{{header: X-API-Key}}]
"""
ENVOY_JWT = """
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                idp: {{issuer: "{issuer}", audiences: [{audience}], local_jwks: {{filename: "{folder}/files/jwks.json"}}}}
              rules: [{{match: {{prefix: "/"}}, requires: {{provider_name: idp}}}}]
"""

HAPROXY = """
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  http-reuse always
frontend keys
  bind 127.0.0.1:{port}
  stick-table type string len 64 size 1k expire 60s store http_req_rate(1s)
  http-request deny deny_status 401 unless {{ req.hdr(x-api-key) -m str {key} }}
  http-request track-sc0 req.hdr(x-api-key)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 100000000 }}
  use_backend echo if {{ path /ws }}
  default_backend up
frontend tokens
  bind 127.0.0.1:{token_port}
  http-request deny deny_status 401 unless {{ http_auth_bearer,jwt_verify("RS256","{folder}/idp.pem") 1 }}
  default_backend up
backend up
  server up 127.0.0.1:{upstream}
backend echo
  server echo 127.0.0.1:{echo}
"""

CADDY = """
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  @denied not header X-API-Key {key}
  respond @denied 401
  reverse_proxy /ws 127.0.0.1:{echo}
  reverse_proxy 127.0.0.1:{upstream} {{
    transport http {{
      keepalive_idle_conns_per_host 128
    }}
  }}
}}
"""

MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 100000
max_inflight_messages 1000
set_tcp_nodelay true
"""
