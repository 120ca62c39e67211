"""kazoo's own test suite, run against Corral: a pytest plugin, and the command that runs the suite with it.

    CORRAL_SERVER=target/release/corral-server python3 corral_cluster.py [arguments of pytest]

It needs Linux, and kazoo with what its tests import: `pip install 'kazoo[sasl,test]' pytest-xdist`. It takes most of a minute; `-n 0`, two.

The idea: kazoo's tests ask its harness for a cluster, and stop and start members of it. The harness gets the cluster of this file
instead, which does the same with processes of Corral: three servers that are one ensemble, on loopback addresses that nobody else has.
What the harness asks of its Java servers in `zoo.cfg` and as system properties is asked of these, too. Every worker of pytest has an
ensemble of its own. No test is changed. `exceptions.py` lists those that are left out, and those that are known to fail, and why.

For a comparison, the same plugin runs the suite against Apache's server, when ZOOKEEPER_CLASSPATH says where its jars are and
CORRAL_SERVER is not set. Nothing but the program is another then; what is listed as failing with Corral has to pass.

Invariant: no process outlives the pytest process that started it, however that ends, and all files are in one temporary directory.

Not here: TLS, SASL and Kerberos, for which the harness would need certificates and a KDC.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# No compiled files, neither here nor where kazoo is installed, by this process and by its workers.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

import kazoo.testing.harness as harness
import pytest

import exceptions

HERE = os.path.dirname(os.path.abspath(__file__))
CORRAL = os.environ.get("CORRAL_SERVER")
JAVA_CLASSPATH = os.environ.get("ZOOKEEPER_CLASSPATH")
FILES = "CORRAL_KAZOO_DIR"  # Tells the workers where all files are.
CLIENT_PORT, QUORUM_PORT, ELECTION_PORT = 2181, 2888, 3888
SERVING_SECONDS = 30

log = logging.getLogger(__name__)


class Server:
    """A member of a cluster. Its data stay when it is stopped."""

    def __init__(self, number, host, settings, properties):
        self.number, self.host, self.client_port = number, host, CLIENT_PORT
        self.address = f"{host}:{CLIENT_PORT}"
        self.process = None
        self._settings, self._properties = settings, properties
        self._dir = tempfile.mkdtemp(prefix=f"server-{number}-", dir=os.environ[FILES])
        self._config, self._data, self._log = (os.path.join(self._dir, name) for name in ("zoo.cfg", "data", "log"))

    @property
    def running(self):
        return self.process is not None

    def run(self):
        """Starts it, and does not wait until it serves."""
        if self.running:
            return
        self._configure()
        if CORRAL:
            command = [CORRAL, "--config", self._config]
            for name, value in self._properties.items():
                command += ["-o", f"{name}={value}"]
        else:
            command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8"]
            command += [f"-Dzookeeper.{name}={value}" for name, value in self._properties.items()]
            command += ["-Dreadonlymode.enabled=true", "-Dorg.apache.logging.log4j.level=INFO", "-cp", JAVA_CLASSPATH]
            command += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", self._config]
        # The system kills it if this process (in truth: the thread that starts it) ends without a word.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with open(self._log, "ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def _configure(self):
        os.makedirs(self._data, exist_ok=True)
        with open(os.path.join(self._data, "myid"), "w") as file:
            file.write(str(self.number))
        # As kazoo's harness has it.
        lines = [f"dataDir={self._data}", f"clientPort={CLIENT_PORT}", f"clientPortAddress={self.host}", "tickTime=2000", "initLimit=4",
                 "syncLimit=2", "maxClientCnxns=0", "admin.enableServer=false", *self._settings]
        if CORRAL:
            lines += ["readonlymode.enabled=true", "preAllocSize=1024"]
        with open(self._config, "w") as file:
            file.write("\n".join(lines) + "\n")

    def await_serving(self):
        end = time.monotonic() + SERVING_SECONDS
        while not self._serves():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"server {self.number} does not serve:\n" + "".join(self.get_logs()))
            time.sleep(0.05)

    def _serves(self):
        try:
            with socket.create_connection((self.host, CLIENT_PORT), timeout=2) as connection:
                connection.sendall(b"srvr")
                answer = b""
                while part := connection.recv(4096):
                    answer += part
        except OSError:
            return False
        return b"Mode: " in answer and b"Mode: read-only" not in answer

    def stop(self):
        if not self.running:
            return
        self.process.terminate()
        try:
            self.process.wait(SERVING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            log.error("server %s did not end by itself", self.number)
        self.process = None

    def reset(self):
        """Stops it and takes its data away."""
        self.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def destroy(self):
        self.reset()
        if os.path.exists(self._log):
            os.truncate(self._log, 0)

    def get_logs(self, num_lines=100):
        try:
            with open(self._log, errors="replace") as file:
                return file.readlines()[-num_lines:]
        except FileNotFoundError:
            return []


class Cluster:
    """What kazoo's harness calls a `ZookeeperCluster`."""

    def __init__(self, size=3, observer_start_id=-1, configuration_entries=(), java_system_properties=(), **_about_java):
        settings = list(configuration_entries)
        # `-Dzookeeper.NAME=VALUE`, of which NAME is also a key of a configuration.
        properties = dict(entry.removeprefix("-Dzookeeper.").split("=", 1) for entry in java_system_properties)
        hosts = free_hosts(size)
        if size > 1:
            for number, host in enumerate(hosts, 1):
                role = "observer" if 0 < observer_start_id <= number else "participant"
                settings.append(f"server.{number}={host}:{QUORUM_PORT}:{ELECTION_PORT}:{role}")
        self._servers = [Server(number, host, settings, properties) for number, host in enumerate(hosts, 1)]

    def __getitem__(self, index):
        return self._servers[index]

    def __iter__(self):
        return iter(self._servers)

    def start(self):
        for server in self:
            server.run()
        for server in self:
            server.await_serving()

    def stop(self):
        for server in self:
            server.stop()

    def reset(self):
        for server in self:
            server.reset()

    def terminate(self):
        for server in self:
            server.destroy()

    def get_logs(self):
        return [line for server in self for line in server.get_logs()]


def free_hosts(count):
    """Loopback addresses next to each other where nobody listens: every process looks at another place first."""
    for number in range(os.getpid() * 7, os.getpid() * 7 + 1000):
        hosts = [f"127.{1 + number // 250 % 250}.{1 + number % 250}.{i + 1}" for i in range(count)]
        try:
            for host in hosts:
                socket.create_server((host, CLIENT_PORT)).close()
        except OSError:
            continue
        return hosts
    raise RuntimeError("no free addresses")


# --- the plugin ---------------------------------------------------------------------------------------------------------

def pytest_configure(config):
    if not (shutil.which(CORRAL) if CORRAL else JAVA_CLASSPATH):
        raise pytest.UsageError("CORRAL_SERVER has to be the path of a corral-server")
    # As an interrupt: what has been started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # kazoo skips by this version on CI, and by what the server says elsewhere.
    os.environ.pop("CI", None)
    os.environ["ZOOKEEPER_VERSION"] = "3.9.5"
    if FILES not in os.environ:
        os.environ[FILES] = tempfile.mkdtemp(prefix="corral-kazoo-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(FILES), ignore_errors=True))

    harness.ZookeeperCluster = Cluster
    config.add_cleanup(lambda: harness.CLUSTER and harness.CLUSTER.terminate())


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if exceptions.find(exceptions.CANNOT_APPLY, item.nodeid)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    for item in items:
        if reason := CORRAL and exceptions.find(exceptions.FAILS, item.nodeid):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What the servers said, with what has failed."""
    report = yield
    if report.failed and harness.CLUSTER:
        report.sections.append(("servers", "".join(harness.CLUSTER.get_logs())))
    return report


def main(arguments):
    options = ["-p", "corral_cluster", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", HERE]
    options += ["-q", "-ra", "--disable-warnings", "--timeout", "120", "-n", "4", "--dist", "loadscope", "--pyargs", "kazoo.tests"]
    return pytest.main(options + arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
