"""The endpoint over ssh: one kept connection, one way to run a script there, one way to quote.

Everything that is told to ssh stands in one generated configuration file, which rsync's and scp's
own ssh read as well. ssh takes the first value that it finds, so the file holds, in this order: what
must be so, the options of our configuration, the user's own ssh configuration, and what we prefer.
"""

import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import DbbError, Failure, ProcessError, RemoteError, Scope
from common.process import Argv, Background, Chunk, Completed, lines_of, run

ENVIRONMENT = {"LC_ALL": "C"}
"""For every program whose messages are read: they are in English then, here and (with SendEnv) there."""

ENDPOINT_FULL = "endpoint full"
"""The cause of failures for want of space there, whichever program met them."""

_SOCKET_LIMIT = 90
"""ssh binds `<ControlPath>.<16 letters>` first, and a socket's name has 108 bytes (unix(7))."""
_LOGIN_SECONDS = 20.0
"""For what ConnectTimeout does not cover: authentication."""
_PREFERRED = b"ConnectTimeout 10\nServerAliveInterval 15\nServerAliveCountMax 3\n"
"""Where nobody says otherwise."""
_PLACEHOLDER = re.compile(rb"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Site:
    """How the endpoint is reached."""

    host: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    config: str | None = None
    """Read in place of the user's and the system's ssh configuration."""
    options: Mapping[str, str] = field(default_factory=dict)
    """As in ssh_config(5)."""
    remote_template: str | None = None
    """An own command that runs ``{command}`` at the endpoint with our standard input and output."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What other placeholders of templates stand for."""

    @property
    def target(self) -> str:
        """The host as rsync and scp want it before a colon."""
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class Said:
    """How a script at the endpoint ended, and what it printed."""

    done: Completed
    answer: bytes
    failure: Failure | None = None
    """Why it has not succeeded."""


class Remote:
    """The endpoint, for one worker: its ssh configuration and its kept connection; a context manager.

    The connection is a ControlMaster that runs as our child and dies with us. Where it can't be
    used (it is just closing, or sshd allows no more sessions on it) ssh makes one of its own.

    Parameters
    ----------
    runtime
        A private directory with a short name.
    name
        Distinguishes workers that share the directory.

    Raises
    ------
    DbbError
        The directory's name is too long for ssh's control socket.
    """

    def __init__(self, site: Site, runtime: Path, name: str) -> None:
        self.site, self.runtime = site, runtime
        self.config = runtime / f"{name}.conf"
        # A master that was orphaned removes its socket as it goes: it must not be a successor's.
        self._socket = runtime / f"{name}.{os.getpid()}"
        self._log = runtime / f"{name}.log"
        self._master: Background | None = None
        self._patience = 0.0
        self.greeting = b""
        """What the account's start-up files there printed before the last script."""
        self._login_until: float | None = None
        """While it is not known whether a login succeeds: the time by which it must."""
        if len(os.fsencode(self._socket)) > _SOCKET_LIMIT:
            raise DbbError(
                f"{runtime}: the name is too long for ssh's control socket",
                "set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter name",
            )

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ssh_argv(self) -> tuple[str, ...]:
        """ssh as rsync is to call it; valid after `connect`."""
        return ("ssh", "-F", str(self.config))

    @property
    def connected(self) -> bool:
        """Whether the kept connection is (still) there."""
        return self._master is not None and not self._lost()

    def connect(self) -> None:
        """See that the connection is there: at once if it is, else make it (again).

        An own command for ``remote`` makes its own.

        Raises
        ------
        RemoteError
            It can't be made; the failure says why and what to do.
        """
        if self.site.remote_template is not None:
            return
        if not self._is_kept():
            self._begin_login()
        self._await_login()

    def begin(self) -> None:
        """Start to connect and do not wait; if it goes wrong, `connect` tries again and tells."""
        if self.site.remote_template is None:
            with suppress(RemoteError):
                self._begin_login()

    def run(
        self,
        argv: Argv,
        *,
        stdin: bytes = b"",
        more: Callable[[], Iterable[Chunk]] = tuple,
        timeout: float | None = None,
        stall_timeout: float | None = None,
        on_progress: Callable[[int], None] | None = None,
        meanwhile: Iterator[object] | None = None,
    ) -> Completed:
        """Connect and run a program that uses `ssh_argv`; once more if the connection was lost over it.

        A connection that was closing, or was killed, is no news; only where it can't be made again
        is there a failure. So the program must be one that can be repeated, and `more` begins anew.

        Raises
        ------
        RemoteError
            There is no connection, or not the program.
        """
        for _ in range(2):
            self.connect()
            try:
                done = run(
                    argv,
                    stdin=stdin,
                    more=more(),
                    timeout=timeout,
                    stall_timeout=stall_timeout,
                    on_progress=on_progress,
                    meanwhile=meanwhile,
                    env=ENVIRONMENT,
                )
            except ProcessError as error:
                raise RemoteError(not_there(error)) from error
            if done.exit_code == 0 or done.ended != "exited" or not self._lost():
                break
        if done.ended == "stalled":
            # ssh takes up to 45 s to see for itself that nobody answers; the next one need not wait.
            self._drop_master()
        return done

    def run_script(
        self,
        script: str,
        data: bytes = b"",
        *,
        timeout: float | None = None,
        stall_timeout: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> bytes:
        """Run a script with the endpoint's POSIX shell and give what it prints.

        The script has `data` as its standard input, may run twice (see `run`), and has succeeded
        when it ends with 0. What an account's start-up files print before it is left out.

        Raises
        ------
        RemoteError
            There is no connection (``CONNECTION``), or the script failed (``ENDPOINT``).
        """
        said = self.try_script(
            script, data, timeout=timeout, stall_timeout=stall_timeout, on_progress=on_progress
        )
        if said.failure is not None:
            raise RemoteError(said.failure)
        return said.answer

    def try_script(
        self,
        script: str,
        data: bytes = b"",
        more: Callable[[], Iterable[Chunk]] = tuple,
        *,
        timeout: float | None = None,
        stall_timeout: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Said:
        """The same, for who wants to know how a script has failed; `more` follows `data`, and begins anew.

        Raises
        ------
        RemoteError
            There is no connection.
        """
        mark = f"<dbb-{secrets.token_hex(8)}>".encode()
        whole = b"printf %s '" + mark + b"'\n" + os.fsencode(script)
        # `sh -s` would read ahead and run data as commands (dash does). This works under every login
        # shell, since nothing in it needs escaping. Names in the script are of any bytes.
        command = f"exec sh -c 'LC_ALL=C; export LC_ALL; eval \"$(head -c {len(whole)})\"'"
        done = self.run(
            self._argv(command),
            stdin=whole + data,
            more=more,
            timeout=timeout,
            stall_timeout=stall_timeout,
            on_progress=on_progress,
        )
        self.greeting, begun, answer = done.stdout.partition(mark)
        if done.exit_code == 0 and begun:
            return Said(done, answer)
        return Said(done, answer, self.failure(done) or _script_failure(done, begun=bool(begun)))

    def failure(self, done: Completed) -> Failure | None:
        """The failure of the connection that ended a program of `run`; None if that was not it."""
        if done.ended == "stalled":
            return stalled(done)
        if done.exit_code != 255 or done.ended != "exited":
            return None
        if (found := connection_failure(done.stderr_lines)) is not None:
            return found
        if self.connected:
            # ssh says 255 as well when the far command was ended by a signal.
            return command_killed(_words(done))
        return connection_failure(self._log_lines()) or Failure(
            Scope.CONNECTION, "connection lost", _words(done), _NETWORK
        )

    def close(self) -> None:
        """End the connection and leave nothing behind."""
        self._drop_master()
        _remove(self.config, self._log)

    def _argv(self, command: str) -> Argv:
        if self.site.remote_template is None:
            return [*self.ssh_argv, "--", self.site.host, command]
        values = {key: os.fsencode(value) for key, value in self.site.parameters.items()}
        return fill(split_template(self.site.remote_template), {**values, "command": command.encode()})

    def _lost(self) -> bool:
        # A master whose connection broke ends within moments, but not before its clients.
        return self._master is not None and self._master.wait(0.05) is not None

    def _drop_master(self) -> None:
        self._login_until = None
        if self._master:
            self._master.close()
            self._master = None
        _remove(self._socket)

    def _is_kept(self) -> bool:
        """Whether there is a connection, or one in the making."""
        alive = self._master is not None and self._master.poll() is None
        return alive and (self._login_until is not None or self._socket.exists())

    def _begin_login(self) -> None:
        """Start to connect, and have ssh check its configuration meanwhile."""
        for prefer_cipher in (True, False):
            self._drop_master()
            self._write_config(prefer_cipher=prefer_cipher)
            try:
                self._start_master()
                done = run([*self.ssh_argv, "-G", "--", self.site.host], env=ENVIRONMENT, timeout=30)
            except ProcessError as error:
                raise RemoteError(not_there(error)) from error
            if done.exit_code == 0:
                found = re.search(rb"^connecttimeout (\d+)$", done.stdout, re.MULTILINE)
                self._patience = _LOGIN_SECONDS + (float(found[1]) if found else 10.0)
                self._login_until = time.monotonic() + self._patience
                return
            # OpenSSH before 8.1 knows no `^`, some builds lack the cipher: it is a preference, no more.
            if b"cipher" not in done.stderr.lower():
                break
        self._drop_master()
        first = next(iter(done.stderr_lines), "ssh refused its configuration")
        # Where it stands in the generated file helps nobody.
        raise RemoteError(
            _bad_configuration(re.sub(rf"^{re.escape(str(self.config))}:? line \d+: ", "", first))
        )

    def _start_master(self) -> None:
        _remove(self._log)
        argv = [*self.ssh_argv, "-M", "-N", "--", self.site.host]
        self._master = Background(argv, env=ENVIRONMENT, output=self._log)

    def _await_login(self) -> None:
        if self._master is None or self._login_until is None:
            return
        # The socket appears once the login has succeeded.
        while not self._socket.exists():
            ended = self._master.wait(0.002) is not None
            if ended or time.monotonic() > self._login_until:
                self._drop_master()
                raise RemoteError(self._login_failure(ended, self._patience))
        self._login_until = None

    def _login_failure(self, ended: bool, patience: float) -> Failure:
        lines = self._log_lines()
        if ended and (found := recognise((*_SYMPTOMS, *_LOGIN_SYMPTOMS), Scope.CONNECTION, lines)):
            return found
        if (found := connection_failure(lines)) is not None:
            return found
        cause = "ssh login failed" if ended else "ssh login hangs"
        reason = next(reversed(lines), "") or (
            "ssh ended and said nothing" if ended else f"no login within {patience:.0f} s"
        )
        user = f"{self.site.user}@" if self.site.user else ""
        hint = f"try it by hand, and see where it hangs: ssh -v {user}{self.site.host}"
        return Failure(Scope.CONNECTION, cause, reason, hint)

    def _log_lines(self) -> list[str]:
        with suppress(FileNotFoundError):
            return lines_of(self._log.read_bytes())
        return []

    def _write_config(self, *, prefer_cipher: bool) -> None:
        # `Host *` ends whatever block the user's configuration ended in.
        text = self._own_config() + self._users_config() + b"\nHost *\n" + _PREFERRED
        if prefer_cipher:
            text += b"Ciphers ^aes128-gcm@openssh.com\n"
        try:
            # Somebody who tidies /tmp up may have taken it away.
            self.runtime.mkdir(mode=0o700, exist_ok=True)
            with open(self.config, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(text)
        except OSError as error:
            raise RemoteError(runtime_failure(error)) from error

    def _own_config(self) -> bytes:
        """What must be so, and the options of our configuration."""
        site = self.site
        lines = [
            "BatchMode yes",
            "ControlMaster no",
            "ControlPersist no",
            f"ControlPath {_config_value(str(self._socket))}",
            "ClearAllForwardings yes",
            "ForwardAgent no",
            "ForwardX11 no",
            "LogLevel INFO",
            "PermitLocalCommand no",
            "RemoteCommand none",
            "RequestTTY no",
        ]
        if site.user:
            lines.append(f"User {_config_value(site.user)}")
        if site.port:
            lines.append(f"Port {site.port}")
        if site.identity:
            lines += [f"IdentityFile {_config_value(site.identity)}", "IdentitiesOnly yes"]
        lines += [f"{key} {value}" for key, value in site.options.items()]
        if any("\n" in line for line in lines):
            raise RemoteError(_bad_configuration("a line break in an ssh option"))
        return os.fsencode("\n".join(lines) + "\n")

    def _users_config(self) -> bytes:
        """As ssh itself would read it: it checks who may write ~/.ssh/config, and no other file."""
        if self.site.config is None:
            with suppress(OSError), open("/etc/ssh/ssh_config", "rb") as file:
                return b"Include ~/.ssh/config\nHost *\n" + file.read()
            return b"Include ~/.ssh/config\n"
        path = os.path.expanduser(self.site.config)
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise RemoteError(_bad_configuration(f"{path}: {error.strerror}")) from error


def quote(value: bytes) -> bytes:
    """A word that a POSIX shell reads as exactly these bytes."""
    return b"'" + value.replace(b"'", b"'\\''") + b"'"


def split_template(template: str) -> list[bytes]:
    """The words of a command template, by a shell's rules of quoting and none of its others.

    Raises
    ------
    ValueError
        A quotation mark is not closed.
    """
    return [os.fsencode(word) for word in shlex.split(template)]


def fill(words: Sequence[bytes], values: Mapping[str, bytes]) -> list[bytes]:
    """Put values in the place of ``{placeholders}``; a value is never split and never looked into.

    Raises
    ------
    KeyError
        There is no value for a placeholder.
    """
    return [_PLACEHOLDER.sub(lambda found: values[found[1].decode()], word) for word in words]


@dataclass(frozen=True, slots=True)
class Symptom:
    """What a program says, as a pattern for one line, and what it means."""

    pattern: str
    cause: str
    hint: str = ""
    transient: bool = True


_CONFIGURATION = "ssh configuration"
_CONFIGURATION_HINT = "correct endpoint.ssh, or the ssh configuration that it names"
_MORE_SESSIONS = "raise MaxSessions and MaxStartups in the endpoint's sshd_config, or use fewer num_threads"
_NETWORK = "look at the network between the sites"
_TURNED_AWAY = (
    "sshd turns connections away: MaxStartups, PerSourcePenalties, a firewall, or an address block?"
)
_KEY = "log in by hand with endpoint.ssh.identity as endpoint.user; is its public key authorized there?"

# In order of precedence: the first that matches any line wins. The words are those of OpenSSH 7 to 10.
_SYMPTOMS = (
    Symptom(
        r"Bad configuration option|Bad owner or permissions on|Can't open user config file",
        _CONFIGURATION,
        _CONFIGURATION_HINT,
        transient=False,
    ),
    Symptom(
        r"^Host key for .+ has changed",
        "host key changed",
        "if the endpoint was re-installed, remove its old key with ssh-keygen -R; else find out who answers",
        transient=False,
    ),
    Symptom(
        r"host key is known for|Host key verification failed",
        "host key unknown",
        "put the endpoint's host key into known_hosts: log in by hand once, or use ssh-keyscan and compare",
        transient=False,
    ),
    Symptom(
        r"^(no such identity: |Identity file .+ not accessible|Warning: Identity file .+ not accessible"
        r"|Load key .+: |Permissions .+ for '.+' are too open|Unable to load identity)",
        "identity file unusable",
        "endpoint.ssh.identity must be a private key without passphrase that only this account can read",
        transient=False,
    ),
    Symptom(r"Permission denied \(", "permission denied", _KEY, transient=False),
    Symptom(
        r"Too many authentication failures",
        "permission denied",
        "set endpoint.ssh.identity, so that only this key is offered",
        transient=False,
    ),
    Symptom(r"Could not resolve hostname", "host name not resolved", "look at endpoint.host and the DNS"),
    Symptom(
        r"connect to (host|address) .+: Connection refused",
        "connection refused",
        "is sshd running at the endpoint, and endpoint.ssh.port its port?",
    ),
    Symptom(
        r"No route to host|Network is unreachable|Network is down|Host is down",
        "no route to the endpoint",
        _NETWORK,
    ),
    Symptom(
        r"timed out during banner exchange|Connection to .+ port \d+ timed out|banner exchange: .+ timed out",
        "ssh does not answer",
        "something accepts connections on that port but does not answer: is sshd overloaded or hung?",
    ),
    Symptom(
        r"connect to host .+: (Connection|Operation) timed out",
        "connection timed out",
        "is the endpoint up, and does a firewall let us through?",
    ),
    Symptom(
        r"(kex|ssh)_exchange_identification: |banner exchange: ",
        "connection closed before login",
        _TURNED_AWAY,
    ),
    Symptom(
        r"Unable to negotiate|no matching .+ found",
        "no common algorithm",
        "the two ssh programs share no algorithm: look at Ciphers, KexAlgorithms, HostKeyAlgorithms",
        transient=False,
    ),
)

# Said by ssh when it gives up; also when it then goes on by another way, so only of use after it failed.
_LATER_SYMPTOMS = (
    Symptom(r"Session open refused by peer|administratively prohibited", "too many sessions", _MORE_SESSIONS),
    Symptom(
        r"Timeout, server .+ not responding|Connection (to .+ )?(closed|reset)|Broken pipe|Connection closed"
        r"|Shared connection to .+ closed|read from master failed|Connection corrupted|Corrupted MAC"
        r"|[Ll]ost connection|Software caused connection abort|packet_write_wait|ssh_dispatch_run_fatal"
        r"|Connection timed out",
        "connection lost",
        _NETWORK,
    ),
)


# Said of a connection that was there, and by OpenSSH 10 also of one that sshd closed before the login.
_LOGIN_SYMPTOMS = (
    Symptom(r"^Connection (closed|reset) by .+ port \d+", "connection closed before login", _TURNED_AWAY),
)


def connection_failure(lines: Iterable[str]) -> Failure | None:
    """What kept ssh from connecting, or broke the connection, from its words; None: nothing known."""
    return recognise((*_SYMPTOMS, *_LATER_SYMPTOMS), Scope.CONNECTION, list(lines))


# What the programs of the endpoint say when its disk, not the file, is the trouble. (scp and sftp know
# only "Failure" for most of it.)
_ENDPOINT_SYMPTOMS = (
    Symptom(
        r"No space left on device|write remote .+: Failure",
        ENDPOINT_FULL,
        "make room at the endpoint, on the filesystem of endpoint.staging",
    ),
    Symptom(r"[Qq]uota exceeded", "endpoint over quota", "make room at the endpoint, or raise the quota"),
    Symptom(r"Read-only file system", "endpoint read-only", "mount it for writing there"),
    Symptom(
        r"Permission denied|Operation not permitted",
        "endpoint not writable",
        "the account at the endpoint must be able to write in endpoint.staging and endpoint.buffer",
    ),
    Symptom(
        r"Input/output error|Stale (NFS )?file handle|Transport endpoint is not connected|Structure needs cl",
        "endpoint disk trouble",
        "look at the endpoint's filesystem and its log",
    ),
)


def endpoint_failure(lines: Iterable[str]) -> Failure | None:
    """What is wrong with the endpoint, from lines that were said there; None: nothing that we know."""
    return recognise(_ENDPOINT_SYMPTOMS, Scope.ENDPOINT, list(lines))


def stalled(done: Completed) -> Failure:
    """The failure of a program that was ended because nothing moved."""
    reason = f"{_name(done)} moved no bytes and was ended after {done.seconds:.0f} s"
    return Failure(Scope.CONNECTION, "connection stalled", reason, _NETWORK)


def program_missing(name: str, reason: str) -> Failure:
    """The failure of an endpoint that lacks a program."""
    hint = f"install {name} at the endpoint, on the PATH of a login without terminal"
    return Failure(Scope.ENDPOINT, "program missing at the endpoint", reason, hint, transient=False)


def command_failed(reason: str) -> Failure:
    """The failure of an endpoint where something went wrong in words that nobody here knows."""
    hint = "mend there what it says; `hdfmgr check` looks at the endpoint as a whole"
    return Failure(Scope.ENDPOINT, "endpoint command failed", reason, hint)


def command_killed(reason: str) -> Failure:
    """The failure of an endpoint where somebody ended what we had started."""
    hint = "it is tried again; who kills programs there?"
    return Failure(Scope.ENDPOINT, "endpoint command killed", reason, hint)


def runtime_failure(error: OSError) -> Failure:
    """The failure of a worker whose directory for sockets and other passing things can't be used."""
    reason = f"{error.filename}: {error.strerror}"
    return Failure(Scope.HANDOFF, "runtime directory unusable", reason, "look at the disk that it is on")


def not_there(error: ProcessError) -> Failure:
    """The failure of a program that is missing on this side."""
    return Failure(Scope.HANDOFF, "program missing", error.message, error.hint, transient=False)


def recognise(symptoms: Iterable[Symptom], scope: Scope, lines: Sequence[str]) -> Failure | None:
    """The first symptom that any of the lines shows, as a failure."""
    for symptom in symptoms:
        for line in lines:
            if re.search(symptom.pattern, line):
                # Hints follow it, so it does not end a sentence.
                return Failure(scope, symptom.cause, line.rstrip("."), symptom.hint, symptom.transient)
    return None


def _bad_configuration(reason: str) -> Failure:
    return Failure(Scope.CONNECTION, _CONFIGURATION, reason, _CONFIGURATION_HINT, transient=False)


def _script_failure(done: Completed, *, begun: bool) -> Failure:
    if done.ended == "timeout":
        reason = f"no end after {done.seconds:.0f} s"
        return Failure(Scope.ENDPOINT, "endpoint took too long", reason, "raise general.timeout")
    if done.exit_code < 0:
        reason = f"{_name(done)} was ended by signal {-done.exit_code}"
        return Failure(Scope.HANDOFF, "ssh was killed", reason, "it is tried again; who kills programs here?")
    if done.exit_code == 127:
        return program_missing("sh, head, GNU coreutils and findutils", _words(done))
    if (found := endpoint_failure(done.stderr_lines)) is not None:
        return found
    # An account without a shell says so on standard output.
    refusal = "" if begun else next(reversed(lines_of(done.stdout)), "")
    # sshd's own word about the account's directory comes first, and is the reason of nothing.
    words = [line for line in done.stderr_lines if not line.startswith("Could not chdir to home directory")]
    return command_failed(next(reversed(words), "") or refusal or _words(done))


def _words(done: Completed) -> str:
    return done.last_words or f"{_name(done)} ended with {done.exit_code} and said nothing"


def _name(done: Completed) -> str:
    return os.path.basename(os.fsdecode(done.argv[0]))


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _config_value(value: str) -> str:
    """A value for ssh_config(5) that stands for itself."""
    escaped = value.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
