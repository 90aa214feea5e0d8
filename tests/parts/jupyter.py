"""Jupyter Server as a service that knows nothing of users: whoever reaches it may do everything. Arguments are its own."""

import sys

import ends_with_parent
from jupyter_server.serverapp import ServerApp

ends_with_parent.watch()
ServerApp.launch_instance([
    # The tests may run as root; who may come in is decided before the server is reached.
    "--allow-root", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
    "--ServerApp.open_browser=False", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1",
    "--ServerApp.jpserver_extensions={'jupyter_server_terminals': True}", *sys.argv[1:],
])
