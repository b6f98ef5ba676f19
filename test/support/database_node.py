"""A database server of Debian's, in a directory and on a port of its own; it ends, and the directory goes, when standard input does.

Argument: JSON {kind: mariadb | postgresql, directory, port, tls: {ca, cert, key} | null}. Answers `ready` when the server does. Each line
of standard input is a command, answered with `done`: `kill` (SIGKILL to all of its processes), `start`, `halt` and `resume` (SIGSTOP, SIGCONT).
"""
import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time

START_SECONDS = 90
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


class Server:
    def __init__(self, settings):
        self.settings = settings
        self.directory = settings["directory"]
        self.data = os.path.join(self.directory, "data")
        self.process = None
        self.user = None

    def run(self, *argv, text=None):
        done = subprocess.run(argv, env=ENV, input=text, text=True, preexec_fn=self.become,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise SystemExit(f"{argv[0]} failed: {done.stdout[-3000:]}")

    def become(self):
        if self.user is not None:
            os.setgroups([])
            os.setgid(self.user.pw_gid)
            os.setuid(self.user.pw_uid)

    def start(self):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), env=ENV, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=self.become, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self.answers():
                return
            time.sleep(0.05)
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as log:
            raise SystemExit(f"the server did not start:\n{log.read()[-3000:]}")

    def send(self, number):
        """To the server and its children: those of PostgreSQL are in groups of their own."""
        for pid in [self.process.pid, *children_of(self.process.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        if self.process is not None:
            self.send(signal.SIGKILL)
            self.process.wait()
            self.kill_orphans()

    def halt(self):
        """A thread that runs on another processor stops a moment later, and may have answered until then."""
        self.send(signal.SIGSTOP)
        while not all(is_stopped(pid) for pid in [self.process.pid, *children_of(self.process.pid)]):
            time.sleep(0.005)

    def kill_orphans(self):
        """One that was forked while the others were looked for holds PostgreSQL's shared memory, and the next start fails."""
        while orphans := processes_in(self.data):
            for pid in orphans:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)


def is_stopped(pid):
    """True if every thread of the process is stopped or dead (proc(5), the state in stat)."""
    for path in glob.glob(f"/proc/{pid}/task/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8", errors="replace") as stat:
                text = stat.read()
        except OSError:
            continue
        if text.rpartition(")")[2].split()[0] not in "TZX":
            return False
    return True


def processes_in(directory):
    found = []
    for path in glob.glob("/proc/[0-9]*/cwd"):
        try:
            if os.readlink(path) == directory:
                found.append(int(path.split("/")[2]))
        except OSError:
            continue
    return found


def children_of(parent):
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8", errors="replace") as stat:
                text = stat.read()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        if len(fields) > 1 and int(fields[1]) == parent:
            found.append(int(text.split(" ", 1)[0]))
    return found


class MariaDb(Server):
    def prepare(self):
        os.mkdir(self.data)
        self.run("/usr/bin/mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.data}", "--skip-test-db",
                 "--auth-root-authentication-method=normal", "--skip-name-resolve")

    def command(self):
        options = {
            "user": "root", "datadir": self.data, "socket": self.socket(), "pid-file": f"{self.directory}/pid",
            "bind-address": "127.0.0.1", "port": self.settings["port"], "max-connections": 60, "skip-name-resolve": "ON", "default-time-zone": "+09:00",
            "innodb-buffer-pool-size": "48M", "innodb-log-file-size": "8M", "innodb-flush-log-at-trx-commit": 2,
            "innodb-lock-wait-timeout": 5, "character-set-server": "utf8mb3", "collation-server": "utf8mb3_general_ci",
        }
        tls = self.settings.get("tls")
        if tls:
            options |= {"ssl-ca": tls["ca"], "ssl-cert": tls["cert"], "ssl-key": tls["key"]}
        return ["/usr/sbin/mariadbd", "--no-defaults"] + [f"--{name}={value}" for name, value in options.items()]

    def socket(self):
        return os.path.join(self.directory, "socket")

    def answers(self):
        return subprocess.run(["/usr/bin/mariadb", "--no-defaults", f"--socket={self.socket()}", "-uroot", "-e", "SELECT 1"],
                              env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def make_user(self):
        self.run("/usr/bin/mariadb", "--no-defaults", f"--socket={self.socket()}", "-uroot", text="""
            CREATE USER 'cinder'@'127.0.0.1' IDENTIFIED BY 'p@ss/word'; GRANT ALL ON *.* TO 'cinder'@'127.0.0.1';""")


class PostgreSql(Server):
    def __init__(self, settings):
        super().__init__(settings)
        self.bin = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]

    def prepare(self):
        if os.getuid() == 0:
            self.user = pwd.getpwnam("postgres")
            os.chown(self.directory, self.user.pw_uid, self.user.pw_gid)
        self.run(f"{self.bin}/initdb", "-D", self.data, "-U", "admin", "--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8",
                 "--no-sync", "--locale=C.UTF-8")
        tls = self.settings.get("tls")
        if tls:
            for name in ("cert", "key"):
                to = os.path.join(self.data, f"server.{name}")
                shutil.copy(tls[name], to)
                os.chmod(to, 0o600)
                if self.user is not None:
                    os.chown(to, self.user.pw_uid, self.user.pw_gid)

    def command(self):
        options = {
            "listen_addresses": "127.0.0.1", "port": self.settings["port"], "unix_socket_directories": self.directory, "fsync": "off",
            "max_connections": 60, "shared_buffers": "16MB", "lock_timeout": "5s", "timezone": "Asia/Tokyo",
        }
        if self.settings.get("tls"):
            options |= {"ssl": "on", "ssl_cert_file": "server.cert", "ssl_key_file": "server.key"}
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        return [f"{self.bin}/postgres", "-D", self.data, *flags]

    def psql(self, text):
        self.run(f"{self.bin}/psql", "-h", self.directory, "-p", str(self.settings["port"]), "-U", "admin", "-d", "postgres", "-q", "-c", text)

    def answers(self):
        return subprocess.run([f"{self.bin}/pg_isready", "-h", "127.0.0.1", "-p", str(self.settings["port"])], env=ENV,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def make_user(self):
        self.psql("CREATE ROLE cinder LOGIN CREATEDB PASSWORD 'p@ss/word'")


def main():
    settings = json.loads(sys.argv[1])
    server = MariaDb(settings) if settings["kind"] == "mariadb" else PostgreSql(settings)
    verbs = {"kill": server.kill, "start": server.start, "halt": server.halt,
             "resume": lambda: server.send(signal.SIGCONT)}
    try:
        server.prepare()
        server.start()
        server.make_user()
        print("ready", flush=True)
        for line in sys.stdin:
            verbs[line.strip()]()
            print("done", flush=True)
    finally:
        server.kill()
        shutil.rmtree(server.directory, ignore_errors=True)


main()
