"""Each peer's configuration for the same job: verify the token, map route to permission, refuse revoked ids, set the
identity header, forward. `*-pass` only forwards."""

import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from folder import ALGORITHMS, AUDIENCE, ISSUER, PERMISSIONS, ROUTES, Folder, permission_of, permissions_of
from processes import NGINX_HEAD, NGINX_LUA, Process, free_port

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Setting:
    folder: Folder
    algorithm: str
    upstream_port: int
    doorward: str | None
    # What clients speak with the peer.
    tls: bool = False
    http2: bool = False


def start(peer: str, setting: Setting, core: int | None = None) -> Process:
    port = free_port()
    return Process(PEERS[peer](setting, port), setting.folder.log(f"{peer}.log"), port, core)


def nginx(mode: str):
    def argv(setting: Setting, port: int) -> list[str]:
        folder, name = setting.folder, f"nginx-{mode}"
        lua, access = "", ""
        if mode != "pass":
            cached = "true" if mode == "luacache" else "false"
            lua = f"""lua_package_path "{HERE}/?.lua;/usr/share/lua/5.1/?.lua;;";
 init_worker_by_lua_block {{ require('jwtauth').init('{folder.path}', '{setting.algorithm}', {cached}) }}"""
            access = "access_by_lua_block { require('jwtauth').check() }"
        tls = ""
        if setting.tls:
            chain, key, _ = folder.certificate()
            tls = f"ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; ssl_session_cache shared:s:10m;"
        config = NGINX_LUA + NGINX_HEAD.format(logs=folder.path / "logs", name=name) + f""" {lua}
 upstream u {{ server 127.0.0.1:{setting.upstream_port}; keepalive 1024; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port} backlog=4096{" ssl" if setting.tls else ""}{" http2" if setting.http2 else ""}; {tls}
  location / {{ {access}
   proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; client_max_body_size 0; proxy_set_header Host $host; }} }} }}
"""
        return ["nginx", "-c", str(folder.write(f"{name}.conf", config))]
    return argv


def haproxy(mode: str):
    def argv(setting: Setting, port: int) -> list[str]:
        folder, algorithm = setting.folder, setting.algorithm
        config_folder = folder.path / "config"
        key = folder.key("hs.key").read_text() if algorithm == "hs" else folder.key(f"{algorithm}.pub.pem")
        job = f"""
  http-request set-var(txn.need) path,map_beg({config_folder}/routes.map)
  http-request deny deny_status 404 unless {{ var(txn.need) -m found }}
  http-request set-var(txn.b) http_auth_bearer
  http-request set-var(txn.alg) var(txn.b),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str {ALGORITHMS[algorithm]} }}
  http-request deny deny_status 401 unless {{ var(txn.b),jwt_verify(txn.alg,"{key}") 1 }}
  http-request set-var(txn.exp) var(txn.b),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.exp),sub(txn.now) -m int gt 0 }}
  http-request deny deny_status 401 unless {{ var(txn.b),jwt_payload_query('$.iss') -m str {ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.b),jwt_payload_query('$.aud') -m str {AUDIENCE} }}
  http-request deny deny_status 401 if {{ var(txn.b),jwt_payload_query('$.jti') -m str -f {config_folder}/revoked.list }}
  http-request set-var(txn.sub) var(txn.b),jwt_payload_query('$.sub')
  http-request set-var(txn.role) var(txn.b),jwt_payload_query('$.role')
  http-request set-var-fmt(txn.key) "%[var(txn.role)]:%[var(txn.need)]"
  http-request deny deny_status 403 unless {{ var(txn.key),map_str({config_folder}/roles.map) -m found }}
  http-request del-header x-user- -m beg
  http-request set-header X-User-Id %[var(txn.sub)]
  http-request set-header X-User-Role %[var(txn.role)]
"""
        bind = f"ssl crt {folder.certificate()[2]} ssl-min-ver TLSv1.3 alpn {'h2' if setting.http2 else 'http/1.1'}" if setting.tls else ""
        if setting.http2 and not setting.tls:
            bind = "proto h2"
        config = f"""global
  nbthread 1
  maxconn 8000
  tune.bufsize 16384
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always
frontend f
  bind 127.0.0.1:{port} {bind}
{job if mode == "jwt" else ""}
  default_backend b
backend b
  server s1 127.0.0.1:{setting.upstream_port} pool-max-conn -1 maxconn 8000
"""
        return ["haproxy", "-db", "-f", str(folder.write(f"haproxy-{mode}.cfg", config))]
    return argv


ENVOY_TYPE = "type.googleapis.com/envoy.extensions.filters"


def envoy(mode: str, cached: bool = True):
    def argv(setting: Setting, port: int) -> list[str]:
        filters = [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{ENVOY_TYPE}.http.router.v3.Router"}}]
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": "u"}}]
        if mode == "jwt":
            filters = envoy_filters(setting, cached) + filters
            routes = [envoy_route(route) for route in range(ROUTES)]
        manager = {
            "@type": f"{ENVOY_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "h", "generate_request_id": False, "http_filters": filters,
            "route_config": {"name": "r", "virtual_hosts": [
                {"name": "v", "domains": ["*"], "routes": routes, "request_headers_to_remove": ["x-user-evil"]}]},
        }
        thresholds = {"priority": "DEFAULT", "max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}
        config = {"static_resources": {
            "listeners": [{"name": "l", "address": envoy_address(port), "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
            "clusters": [{
                "name": "u", "type": "STATIC", "connect_timeout": "2s", "circuit_breakers": {"thresholds": [thresholds]},
                "load_assignment": {"cluster_name": "u", "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": envoy_address(setting.upstream_port)}}]}]}}],
        }}
        binary = Path(sysconfig.get_paths()["purelib"]) / "envoy" / "_bin" / "envoy"
        name = f"envoy-{mode}{'' if cached else '-nocache'}.json"
        written = setting.folder.write(name, json.dumps(config))
        return [str(binary), "-c", str(written), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
    return argv


def envoy_address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy_filters(setting: Setting, cached: bool) -> list[dict]:
    provider = {
        "issuer": ISSUER, "audiences": [AUDIENCE], "payload_in_metadata": "pl", "forward": True,
        "local_jwks": {"inline_string": setting.folder.key(f"{setting.algorithm}.jwks.json").read_text()},
        "claim_to_headers": [{"header_name": "x-user-id", "claim_name": "sub"}, {"header_name": "x-user-role", "claim_name": "role"}],
    }
    if cached:
        provider["jwt_cache_config"] = {"jwt_cache_size": 10_000}
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]
    return [
        {"name": "envoy.filters.http.jwt_authn", "typed_config": {
            "@type": f"{ENVOY_TYPE}.http.jwt_authn.v3.JwtAuthentication", "providers": {"p": provider}, "rules": rules}},
        {"name": "envoy.filters.http.rbac", "typed_config": {
            "@type": f"{ENVOY_TYPE}.http.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": {}}}},
    ]


def envoy_route(route: int) -> dict:
    wanted = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "pl"}, {"key": "perms"}],
              "value": {"list_match": {"one_of": {"string_match": {"exact": permission_of(route)}}}}}
    policy = {"permissions": [{"any": True}], "principals": [{"metadata": wanted}]}
    rbac = {"@type": f"{ENVOY_TYPE}.http.rbac.v3.RBACPerRoute", "rbac": {"rules": {"action": "ALLOW", "policies": {"p": policy}}}}
    return {"match": {"prefix": f"/api/v1/res{route}/"}, "route": {"cluster": "u"},
            "typed_per_filter_config": {"envoy.filters.http.rbac": rbac}}


def doorward(setting: Setting, port: int) -> list[str]:
    """The program under test. Its access log goes to its log file, as a user would have it."""
    folder = setting.folder
    paths = "".join(f"  /api/v1/res{route}/items/{{id}}:\n    get: bench:{permission_of(route)}\n    post: bench:{permission_of(route)}\n" for route in range(ROUTES))
    policy = folder.write("doorward-policy.yaml", f"version: 1\nservice: bench\nupstream: bench\npaths:\n  /open:\n    get: public\n{paths}")
    def codes(names: list[str]) -> str:
        return ", ".join(f"bench:{name}" for name in names)
    roles = folder.write("doorward-roles.yaml", f"""version: 1
permissions:
  bench: [{codes([f"p{number}" for number in range(PERMISSIONS)])}]
roles:
  ROLE_VIEWER:
    permissions: [{codes(permissions_of("viewer"))}]
  ROLE_EDITOR:
    parent: ROLE_VIEWER
    permissions: [{codes(permissions_of("editor"))}]
""")
    tls = ""
    if setting.tls:
        chain, key, _ = folder.certificate()
        tls = f'tls = {{ certificates = [{{ cert = "{chain}", key = "{key}" }}] }}'
    config = folder.write("doorward.toml", f"""[gateway]
listen = "127.0.0.1:{port}"
policies = ["{policy}"]
workers = 1
{tls}
[upstreams.bench]
endpoints = ["http://127.0.0.1:{setting.upstream_port}"]
[roles]
file = "{roles}"
[auth]
mode = "local"
[[auth.issuers]]
name = "bench"
issuer = "{ISSUER}"
audience = ["{AUDIENCE}"]
keys = "jwks+file://{folder.key(setting.algorithm + ".jwks.json")}"
algorithms = ["{ALGORITHMS[setting.algorithm]}"]
max_lifetime = "31d"
same_subjects = true
confers = "any"
[revocation]
file = "{folder.path / "config" / "revoked.jsonl"}"
[identity]
enabled = false
[admin]
listen = "127.0.0.1:{free_port()}"
[log]
format = "json"
""")
    return [setting.doorward or "doorward", "run", "--config", str(config)]


PEERS = {
    "nginx-pass": nginx("pass"), "haproxy-pass": haproxy("pass"), "envoy-pass": envoy("pass"),
    "envoy-jwt": envoy("jwt"), "envoy-jwt-nocache": envoy("jwt", cached=False), "haproxy-jwt": haproxy("jwt"),
    "nginx-lua": nginx("lua"), "nginx-luacache": nginx("luacache"), "doorward": doorward,
}
