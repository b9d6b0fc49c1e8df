"""A deployment of the product on this machine, one process a role, for benchmarks written in Python.

Promises: ports are free ones, everything lies below one folder, and every process that was started
is stopped when the `with` block ends, whatever happened inside.
"""

import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

REGION = "local"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, seconds, every=0.2):
    """The condition's first true value; an error that names `what` if there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)


class Process:
    """A role, and what /proc says about it."""

    def __init__(self, name, child, log):
        self.name, self.child, self.log = name, child, log

    def status(self, key):
        """A figure of /proc/PID/status in bytes, such as VmHWM; 0 if the process is gone."""
        try:
            text = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(rf"^{key}:\s+(\d+) kB", text, re.M)
        return int(found.group(1)) * 1024 if found else 0

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def alive(self):
        if self.child.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{self.log.read_text()[-3000:]}")
        return True

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(90)
            except subprocess.TimeoutExpired:
                self.kill()


class Deployment:
    """Configuration, tokens and processes. `extra` is TOML after the common part."""

    def __init__(self, binary, folder, tenants, extra="", root=None):
        self.binary, self.folder = pathlib.Path(binary).resolve(), pathlib.Path(folder)
        self.tables = pathlib.Path(root) if root else self.folder / "tables"
        self.tables.mkdir(parents=True, exist_ok=True)
        self.kafka, self.gateway, self.query = free_port(), free_port(), free_port()
        self.metrics_ports, self.tokens, self.running = {}, {}, []
        self.config = self.folder / "companyos.toml"
        lines = [
            f'[kafka]\nbrokers = "127.0.0.1:{self.kafka}"',
            f'[gateway]\nlisten = "127.0.0.1:{self.gateway}"',
            f'[query]\nlisten = "127.0.0.1:{self.query}"',
            f'[tenancy]\nhome_region = "{REGION}"\n[tenancy.regions.{REGION}]\nstorage = "file://{self.tables}"',
        ]
        for tenant in tenants:
            lines.append(f'[tenancy.tenants.{tenant}]\nenvironments = ["prod", "staging"]\nregions = ["{REGION}"]')
        self.config.write_text("\n".join([*lines, extra]) + "\n")
        for tenant in tenants:
            entry = self.command("token", "create", "--tenant", tenant, "--permission", "query", "--permission", "ingest")
            self.tokens[tenant] = re.search(r"cos_[0-9a-f]+", entry).group()
            with self.config.open("a") as config:
                config.write(entry + "\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.stop()

    def command(self, *arguments, config=False):
        """What a command of the binary prints; an error if it fails."""
        arguments = [str(a) for a in arguments] + (["--config", str(self.config)] if config else [])
        done = subprocess.run([self.binary, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"companyos {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def start(self, role, *arguments, config=True, name=None, **settings):
        """Starts a role; settings are environment variables behind COMPANYOS_."""
        name = name or role
        self.metrics_ports[name] = free_port()
        environment = {**os.environ, "COMPANYOS_TELEMETRY__LISTEN": f"127.0.0.1:{self.metrics_ports[name]}"}
        environment |= {f"COMPANYOS_{key}": str(value) for key, value in settings.items()}
        command = [self.binary, role, *map(str, arguments)] + (["--config", self.config] if config else [])
        log = self.folder / f"{name}.log"
        with log.open("a") as out:
            child = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        process = Process(name, child, log)
        self.running.append(process)
        return process

    def start_broker(self, partitions=4):
        """The embedded broker, records in memory, ready to be used."""
        broker = self.start("broker", "--listen", f"127.0.0.1:{self.kafka}", "--memory", "--partitions", partitions, config=False)
        wait_for("the broker", lambda: broker.alive() and "broker listens" in broker.log.read_text(), 30)
        return broker

    def ready(self, process, seconds=60):
        """Waits until the role says that it can work."""

        def answers():
            process.alive()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.metrics_ports[process.name], timeout=5)
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            except OSError:
                return False

        wait_for(f"{process.name} to be ready", answers, seconds)

    def metrics(self, name):
        """A role's metrics: {name: [(labels, value), …]}; empty while it does not answer."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.metrics_ports[name], timeout=5)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except OSError:
            return {}
        found = {}
        for line in text.splitlines():
            if match := re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2) or ""))
                found.setdefault(match.group(1), []).append((labels, float(match.group(3))))
        return found

    def views(self):
        """The views by name, as `companyos pipeline list` tells them."""
        return {view["name"]: view for view in json.loads(self.command("pipeline", "list", "--json", config=True))}


class Client:
    """One tenant's connection to the query endpoint, kept open between questions."""

    def __init__(self, deployment, tenant):
        self.port, self.token = deployment.query, deployment.tokens[tenant]
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Accept": "application/vnd.apache.arrow.stream",
        }

    def ask(self, sql):
        """The answer as an Arrow table."""
        import pyarrow

        self.connection.request("POST", "/v1/sql", json.dumps({"sql": sql}), self.headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body[:500]!r}\n{sql}")
        return pyarrow.ipc.open_stream(body).read_all()
