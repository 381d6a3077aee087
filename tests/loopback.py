"""Two sites on this machine, joined by a real sshd on loopback with throw-away keys."""

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from common.process import Background, Completed, run
from common.remote import Site

REPOSITORY = Path(__file__).parent.parent
_NO_OVERRIDE = "-dac_override,-dac_read_search,-fowner"


class Sshd:
    """An sshd with its own host key, user key, port and directories; a context manager.

    Its limits (MaxSessions, MaxStartups) are the ones that any sshd has, since they are part of
    what is tested.

    Parameters
    ----------
    directory
        For keys, configuration and log; made if need be.
    shell
        The program that takes every session's command, in place of the account's login shell.
    noise
        What the account's start-up files print before every session's command.
    environment
        Variables of every session.
    powerless
        Sessions of root lack its power over other people's permissions, so that a read-only
        directory is one. (Without effect for an ordinary user, who lacks it anyway.)
    """

    host = "127.0.0.1"

    def __init__(
        self,
        directory: Path,
        *,
        shell: str | None = None,
        noise: bytes = b"",
        environment: Mapping[str, str] | None = None,
        powerless: bool = False,
    ) -> None:
        self.directory = directory
        self.port = _free_port()
        self.identity = directory / "id_user"
        self.known_hosts = directory / "known_hosts"
        self.log = directory / "sshd.log"
        self._config = directory / "sshd_config"
        self._daemon: Background | None = None
        self._sessions: list[psutil.Process] = []
        directory.mkdir(parents=True, exist_ok=True)
        _make_key(self.identity)
        shutil.copy(self.identity.with_suffix(".pub"), directory / "authorized_keys")
        (directory / "ssh_config").touch()
        self.renew_host_key()
        self.announce_host_key()
        self._config.write_text(self._configuration(shell, noise, environment or {}, powerless))

    def __enter__(self) -> "Sshd":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(connections=True)

    def ssh_section(self) -> dict[str, Any]:
        """The `endpoint.ssh` section of a configuration; nothing of the user's own is read."""
        return {
            "port": self.port,
            "identity": str(self.identity),
            "config": str(self.directory / "ssh_config"),
            "options": {
                "UserKnownHostsFile": str(self.known_hosts),
                "GlobalKnownHostsFile": "/dev/null",
                "StrictHostKeyChecking": "yes",
            },
        }

    def site(self, **changes: Any) -> Site:
        """The same as `common.remote` wants it; `changes` replace attributes."""
        section = self.ssh_section()
        return Site(
            **{
                "host": self.host,
                "port": self.port,
                "identity": section["identity"],
                "config": section["config"],
                "options": section["options"],
                **changes,
            }
        )

    def start(self) -> None:
        """Listen (again), on the same port with the same keys; returns once it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        # sshd wants to be called by its absolute path, since it executes itself for each connection.
        argv = [_sshd(), "-D", "-f", str(self._config), "-E", str(self.log)]
        self._daemon = Background(argv)
        deadline = time.monotonic() + 10
        while not self.answers():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"sshd did not start: {self.log.read_text()}")
            time.sleep(0.01)

    def stop(self, *, connections: bool = False) -> None:
        """Listen no longer; what is connected stays so unless `connections` are ended as well."""
        self._sessions = self._descendants()
        if self._daemon:
            self._daemon.kill()
            self._daemon = None
        if connections:
            psutil.wait_procs(self._signal(signal.SIGKILL, connections=True), timeout=5)

    def pause(self, *, connections: bool = False) -> None:
        """Hang: the kernel accepts connections and nobody answers, until `resume`."""
        self._signal(signal.SIGSTOP, connections=connections)

    def resume(self) -> None:
        self._signal(signal.SIGCONT, connections=True)

    def answers(self) -> bool:
        """Whether it greets who connects."""
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as peer:
            return peer.recv(4) == b"SSH-"
        return False

    def renew_host_key(self) -> None:
        """Another host key, from the next `start` on; nobody is told."""
        _make_key(self.directory / "id_host")

    def announce_host_key(self) -> None:
        """Make the present host key the known one."""
        key = (self.directory / "id_host.pub").read_text()
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {key}")

    def sessions(self) -> list[psutil.Process]:
        """The processes of its connections and of what they run."""
        return [process for process in self._descendants() if process.is_running()]

    def running(self) -> list[str]:
        """The names of these processes."""
        names = []
        for process in self.sessions():
            with suppress(psutil.NoSuchProcess):
                names.append(process.name())
        return names

    def _descendants(self) -> list[psutil.Process]:
        # Those of a listener that has been stopped are nobody's children any more.
        found = {process for process in self._sessions if process.is_running()}
        for process in [*found, *self._listener()]:
            with suppress(psutil.NoSuchProcess):
                found.update(process.children(recursive=True))
        return list(found)

    def _listener(self) -> list[psutil.Process]:
        return [psutil.Process(self._daemon.pid)] if self._daemon else []

    def _signal(self, number: signal.Signals, *, connections: bool) -> list[psutil.Process]:
        """Signal the listener, and its connections with those that they bring forth meanwhile."""
        signalled: list[psutil.Process] = []
        while new := [
            process
            for process in self._listener() + (self._descendants() if connections else [])
            if process not in signalled
        ]:
            for process in new:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            signalled += new
        return signalled

    def _configuration(
        self, shell: str | None, noise: bytes, environment: Mapping[str, str], powerless: bool
    ) -> str:
        lines = [
            f"ListenAddress {self.host}",
            f"Port {self.port}",
            f"HostKey {self.directory}/id_host",
            f"AuthorizedKeysFile {self.directory}/authorized_keys",
            "PidFile none",
            "StrictModes no",
            f"UsePAM {'yes' if _account_is_locked() else 'no'}",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PrintMotd no",
            "PrintLastLog no",
        ]
        # No test depends on the account's own start-up files (for sshd, bash reads ~/.bashrc).
        variables = {"HOME": str(self.directory), **environment}
        lines.append("SetEnv " + " ".join(f'"{key}={value}"' for key, value in variables.items()))
        powerless &= os.geteuid() == 0
        if shell or noise or powerless:
            lines.append(f"ForceCommand {self._login(shell or '/bin/sh', noise, powerless)}")
            lines.append(f"Subsystem sftp {_sftp_server()}")
        else:
            lines.append("Subsystem sftp internal-sftp")
        if _knows(self._config, "PerSourcePenalties=no"):
            # OpenSSH 9.8 and later shut out an address that failed too often: every test's.
            lines.append("PerSourcePenalties no")
        return "\n".join(lines) + "\n"

    def _login(self, shell: str, noise: bytes, powerless: bool) -> Path:
        """A program that does what a login does: print, become powerless, run the shell."""
        (self.directory / "noise").write_bytes(noise)
        script = self.directory / "login"
        power = f"setpriv --bounding-set={_NO_OVERRIDE} --inh-caps={_NO_OVERRIDE} " if powerless else ""
        script.write_text(
            f"#!/bin/sh\ncat {self.directory}/noise\n"
            f'exec {power}{shell} ${{SSH_ORIGINAL_COMMAND:+-c "$SSH_ORIGINAL_COMMAND"}}\n'
        )
        script.chmod(0o755)
        return script


class Sites:
    """A handoff site and an endpoint site in two directories, and a configuration that joins them."""

    kind = "handoff"

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        self.directory, self.sshd = directory, sshd
        self.buffer = directory / "handoff" / "buffer"
        self.holding = directory / "handoff" / "holding"
        self.staging = directory / "endpoint" / "staging"
        self.endpoint_buffer = directory / "endpoint" / "buffer"
        self.config = directory / "handoff" / "handoff.yaml"
        self.ledger = directory / "handoff" / "ledger.db"
        for path in (self.buffer, self.holding, self.staging, self.endpoint_buffer):
            path.mkdir(parents=True)

    def write_config(self, **overrides: object) -> Path:
        """Write the handoff configuration; mappings in `overrides` are merged, all else replaces."""
        config: dict[str, object] = {
            "handoff": {"buffer": str(self.buffer), "holding": str(self.holding)},
            "endpoint": {
                "host": self.sshd.host,
                "staging": str(self.staging),
                "buffer": str(self.endpoint_buffer),
                "ssh": self.sshd.ssh_section(),
            },
            "database": {"engine": f"sqlite:///{self.ledger}"},
            "general": {"settle": 0, "pause": 0.2, "num_threads": 2, "min_free": 0},
        }
        # JSON is YAML.
        self.config.write_text(json.dumps(merged(config, overrides), indent=2))
        return self.config

    def command(
        self, *args: str | Path, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> Completed:
        """Run `hdfmgr` with these arguments to its end."""
        return run(self._argv(args), timeout=timeout, env=self._environment(env), cwd=REPOSITORY)

    def start(
        self, *args: str | Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Background:
        """Run `hdfmgr` beside the test, by way of `prefix`; what it prints goes into `output`."""
        argv = [*prefix, *self._argv(args)]
        return Background(argv, env=self._environment(env), cwd=REPOSITORY, output=self.output)

    @property
    def output(self) -> Path:
        return self.directory / "handoff" / "output"

    def _argv(self, args: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "handoff", *(str(arg) for arg in args)]

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.directory / "state"), **(env or {})}


def files_below(directory: Path) -> dict[bytes, bytes]:
    """Every regular file below a directory: its relative path and its content."""
    root = os.fsencode(directory)
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = file.read()
    return found


def write_file(root: Path, path: bytes, content: bytes = b"", *, mode: int = 0o644) -> bytes:
    """Write a file below a directory, with the directories above it; gives its whole path."""
    whole = os.path.join(os.fsencode(root), path)
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(whole, "wb") as file:
        # Before it is closed: then it is left alone.
        os.fchmod(file.fileno(), mode)
        file.write(content)
    return whole


def merged(base: dict[str, object], overrides: Mapping[str, object]) -> dict[str, object]:
    """Both; mappings in `overrides` are merged, all else replaces."""
    both = dict(base)
    for key, value in overrides.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _make_key(path: Path) -> None:
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    made = run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "throw-away", "-f", str(path)])
    assert made.exit_code == 0, made.stderr


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin:/sbin")
    assert found, "sshd is not installed"
    return found


def _sftp_server() -> str:
    places = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec")
    found = shutil.which("sftp-server", path=":".join(places))
    assert found, "sftp-server is not installed"
    return found


def _knows(config: Path, option: str) -> bool:
    config.write_text(f"HostKey {config.parent}/id_host\n")
    return run([_sshd(), "-t", "-f", str(config), "-o", option]).exit_code == 0


def _account_is_locked() -> bool:
    """Without PAM, sshd refuses an account whose password is locked, even by key."""
    if os.geteuid() != 0:
        return False
    entry = run(["getent", "shadow", "root"]).stdout.split(b":")
    return len(entry) > 1 and entry[1].startswith(b"!")
