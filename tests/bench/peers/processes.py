"""Starting, stopping and accounting of the processes that are measured."""

import signal
import socket
import subprocess
import time
from pathlib import Path

from folder import BODY, Folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server and its children, pinned to one core."""

    def __init__(self, argv: list[str], log: Path, port: int, core: int | None):
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        self.port = port
        with log.open("w") as output:
            self.child = subprocess.Popen(pinned + argv, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.3).close()
                return
            except OSError:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise SystemExit(f"{argv[0]} did not start; the end of {log}:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        children = self.family()
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(6)
        except subprocess.TimeoutExpired:
            for pid in reversed(children):
                subprocess.run(["kill", "-KILL", str(pid)], stderr=subprocess.DEVNULL, check=False)
            self.child.wait()

    def family(self) -> list[int]:
        """The process ids of the server and all its descendants."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
        family = [self.child.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def cpu_seconds(self) -> float:
        """CPU time of every thread, to the nanosecond."""
        nanoseconds = 0
        for schedstat in [stat for pid in self.family() for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")]:
            try:
                nanoseconds += int(schedstat.read_text().split()[0])
            except OSError:
                continue  # A thread that ended just now.
        return nanoseconds / 1e9

    def peak_kib(self) -> int:
        """The most memory that it has had so far: each process's own peak, added up."""
        lines = (line for pid in self.family() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    def pss_kib(self) -> int:
        """Memory, shared pages divided among those that share them."""
        lines = (line for pid in self.family() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


NGINX_LUA = "".join(f"load_module /usr/lib/nginx/modules/{module}.so;\n" for module in ("ndk_http_module", "ngx_http_lua_module"))
NGINX_HEAD = """user root; worker_processes 1; daemon off; pid {logs}/{name}.pid; error_log {logs}/{name}.err;
events {{ worker_connections 8192; }}
http {{ access_log off; server_tokens off; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 3600;
 client_body_temp_path {logs}/{name}-1; proxy_temp_path {logs}/{name}-2; fastcgi_temp_path {logs}/{name}-3;
 uwsgi_temp_path {logs}/{name}-4; scgi_temp_path {logs}/{name}-5;
"""


class Upstream(Process):
    """The service behind every proxy: 100 bytes, and the identity header it saw. One item is large; what is sent there is read
    before it is answered."""

    def __init__(self, folder: Folder, core: int | None):
        port = free_port()
        config = NGINX_LUA + NGINX_HEAD.format(logs=folder.path / "logs", name="upstream") + f"""
 lua_package_path "/usr/share/lua/5.1/?.lua;;"; client_max_body_size 0; client_body_buffer_size 2m;
 server {{ listen 127.0.0.1:{port} backlog=4096; default_type application/json;
  location /large/ {{ internal; alias {folder.path}/config/; }}
  location ~ /items/{BODY}$ {{ content_by_lua_block {{
   ngx.req.read_body()
   if ngx.req.get_method() == 'POST' then ngx.print('{{}}') else ngx.exec('/large/{BODY}') end }} }}
  location /api/ {{ return 200 '{{"data":"{"x" * 89}"}}'; add_header x-seen-user $http_x_user_id; add_header x-seen-evil $http_x_user_evil; }} }} }}
"""
        super().__init__(["nginx", "-c", str(folder.write("upstream.conf", config))], folder.log("upstream.log"), port, core)
