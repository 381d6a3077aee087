"""A script runs at the endpoint over a kept connection; what keeps it from that is told in plain words."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from common.errors import DbbError, Failure, RemoteError, Scope
from common.process import Background, run
from common.remote import Remote, Site, connection_failure, fill, quote, split_template
from tests.loopback import REPOSITORY, Sshd

EVERY_BYTE = bytes(range(256)) * 400


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def remote(sshd: Sshd, runtime: Path) -> Iterator[Remote]:
    with Remote(sshd.site(), runtime, "w0") as remote:
        yield remote


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """One that may be stopped, paused and re-keyed."""
    with Sshd(tmp_path / "sshd") as server:
        yield server


def logins(sshd: Sshd) -> int:
    return sshd.log.read_text().count("Accepted publickey")


def master_of(runtime: Path, process: psutil.Process | None = None) -> psutil.Process:
    masters = []
    for child in (process or psutil.Process()).children():
        with suppress(psutil.Error):
            words = child.cmdline()
            masters += [child] if "-M" in words and str(runtime) in " ".join(words) else []
    (master,) = masters
    return master


def end_master(runtime: Path, number: signal.Signals) -> None:
    master = master_of(runtime)
    master.send_signal(number)
    wait_for(lambda: master.status() == psutil.STATUS_ZOMBIE)


def failure_of(site: Site, runtime: Path) -> Failure:
    with Remote(site, runtime, "w0") as remote, pytest.raises(RemoteError) as caught:
        remote.connect()
    assert list(runtime.iterdir()) == []
    return caught.value.failure


def wait_for(condition: Callable[[], bool]) -> None:
    # SIGTERM just before ssh waits may be heeded only when it asks the server for life, after 15 s.
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def effective(remote: Remote, option: str) -> str:
    """What ssh makes of the configuration."""
    remote.connect()
    shown = run([*remote.ssh_argv, "-G", remote.site.host]).stdout.decode()
    return next(line.partition(" ")[2] for line in shown.splitlines() if line.split()[0] == option)


def test_a_script_gets_its_data_and_answers(remote: Remote) -> None:
    assert remote.run_script("cat", EVERY_BYTE) == EVERY_BYTE


def test_a_script_may_be_of_any_characters(remote: Remote) -> None:
    assert remote.run_script("printf '%s' \"$1é'\"\nexit 0\n# $(no) `no` 'no") == "é'".encode()


def test_a_script_need_not_read_its_data(remote: Remote) -> None:
    assert remote.run_script("echo done", EVERY_BYTE * 10) == b"done\n"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/usr/bin/csh", "/usr/bin/fish"])
def test_any_login_shell_will_do_even_one_that_prints(shell: str, tmp_path: Path, runtime: Path) -> None:
    with (
        Sshd(tmp_path / "sshd", shell=shell, noise=b"Welcome! It's `now` $(x)\n<dbb-0>") as server,
        Remote(server.site(), runtime, "w0") as remote,
    ):
        assert remote.run_script("cat; echo \"$0 '$((1 + 1))'\"", EVERY_BYTE) == EVERY_BYTE + b"sh '2'\n"


def test_the_connection_is_kept(remote: Remote, sshd: Sshd) -> None:
    # sshd logs a login when the client knows of it already, but before it runs anything.
    remote.run_script("true")
    before = logins(sshd)
    for _ in range(5):
        remote.run_script("true")
    assert logins(sshd) == before


def test_workers_have_connections_of_their_own(sshd: Sshd, runtime: Path) -> None:
    before = logins(sshd)
    with Remote(sshd.site(), runtime, "w0") as one, Remote(sshd.site(), runtime, "w1") as other:
        one.run_script("true")
        other.run_script("true")
    assert logins(sshd) == before + 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_connection_is_replaced_at_once(number: signal.Signals, remote: Remote, runtime: Path) -> None:
    remote.connect()
    for _ in range(3):
        end_master(runtime, number)
        assert remote.run_script("echo here") == b"here\n"
    master_of(runtime)


def test_a_script_whose_connection_broke_runs_again(remote: Remote, runtime: Path, tmp_path: Path) -> None:
    remote.connect()
    script = f"cd {tmp_path}; echo x >> runs; [ $(wc -l < runs) = 2 ] || sleep 5; echo done"
    killer = f"until [ -s {tmp_path}/runs ]; do sleep 0.05; done; kill -9 {master_of(runtime).pid}"
    with Background(["sh", "-c", killer]):
        assert remote.run_script(script) == b"done\n"
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_a_script_whose_connection_cannot_be_made_again_has_failed(own_sshd: Sshd, runtime: Path) -> None:
    with Remote(own_sshd.site(), runtime, "w0") as remote:
        remote.connect()
        own_sshd.stop(connections=True)
        with pytest.raises(RemoteError) as caught:
            remote.run_script("echo here")
        assert (caught.value.failure.scope, caught.value.failure.cause) == (
            Scope.CONNECTION,
            "connection refused",
        )
        own_sshd.start()
        assert remote.run_script("echo here") == b"here\n"


def test_sessions_beyond_the_limit_of_sshd_take_a_way_of_their_own(remote: Remote, sshd: Sshd) -> None:
    remote.connect()
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(Background([*remote.ssh_argv, sshd.host, "sleep 30"]))
        wait_for(lambda: sshd.running().count("sleep") >= 10)
        assert remote.run_script("echo here") == b"here\n"


def test_connecting_again_keeps_the_connection_that_is_there(
    remote: Remote, runtime: Path, sshd: Sshd
) -> None:
    remote.connect()
    master, before = master_of(runtime), logins(sshd)
    remote.connect()
    assert (master_of(runtime), logins(sshd)) == (master, before)


def test_closing_leaves_nothing_behind(sshd: Sshd, runtime: Path) -> None:
    with Remote(sshd.site(), runtime, "w0") as remote:
        remote.run_script("true")
        master = master_of(runtime)
        modes = {oct(path.stat().st_mode & 0o077) for path in runtime.iterdir() if path.suffix != ".log"}
    assert modes == {"0o0"}
    assert list(runtime.iterdir()) == []
    assert not master.is_running()


def test_the_connection_of_a_killed_worker_goes_with_it(sshd: Sshd, runtime: Path) -> None:
    program = (
        "from pathlib import Path; from common.remote import Remote, Site; import time; "
        f"remote = Remote({sshd.site()!r}, Path({str(runtime)!r}), 'w0'); remote.connect(); time.sleep(99)"
    )
    with Background([sys.executable, "-c", program], cwd=REPOSITORY) as worker:
        socket = runtime / f"w0.{worker.pid}"
        wait_for(socket.exists)
        master = master_of(runtime, psutil.Process(worker.pid))
        worker.kill()
        wait_for(lambda: not master.is_running())
        wait_for(lambda: not socket.exists())


@pytest.mark.parametrize(
    ("script", "scope", "cause", "reason"),
    [
        ("echo trouble >&2; exit 3", Scope.ENDPOINT, "endpoint command failed", "trouble"),
        ("exit 3", Scope.ENDPOINT, "endpoint command failed", "ssh ended with 3 and said nothing"),
        ("if; then", Scope.ENDPOINT, "endpoint command failed", "Syntax error"),
        ("no-such-program || exit 127", Scope.ENDPOINT, "program missing at the endpoint", "no-such-program"),
        ("kill -9 $$", Scope.ENDPOINT, "endpoint command killed", "ssh ended with 255"),
        ("mkdir /proc/x || exit", Scope.ENDPOINT, "endpoint command failed", "/proc/x"),
        ("head -c 9 /dev/zero > /dev/full", Scope.ENDPOINT, "endpoint full", "No space left on device"),
    ],
)
def test_a_script_that_fails_is_the_endpoints_affair(
    script: str, scope: Scope, cause: str, reason: str, remote: Remote
) -> None:
    with pytest.raises(RemoteError) as caught:
        remote.run_script(script)
    failure = caught.value.failure
    assert (failure.scope, failure.cause) == (scope, cause)
    assert reason in failure.reason
    assert failure.hint


@pytest.mark.parametrize("warning", ["", "Could not chdir to home directory /nonexistent: No such file"])
def test_an_account_without_a_shell_is_told(tmp_path: Path, runtime: Path, warning: str) -> None:
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\necho "{warning}" >&2\nexec /usr/sbin/nologin\n')
    shell.chmod(0o755)
    with (
        Sshd(tmp_path / "sshd", shell=str(shell)) as server,
        Remote(server.site(), runtime, "w0") as remote,
        pytest.raises(RemoteError, match="This account is currently not available"),
    ):
        remote.run_script("true")


def test_a_script_that_takes_too_long_is_ended(remote: Remote) -> None:
    with pytest.raises(RemoteError) as caught:
        remote.run_script("sleep 30", timeout=0.5)
    assert (caught.value.failure.scope, caught.value.failure.cause) == (
        Scope.ENDPOINT,
        "endpoint took too long",
    )


def test_a_connection_that_hangs_is_given_up_and_made_again(own_sshd: Sshd, runtime: Path) -> None:
    with Remote(own_sshd.site(), runtime, "w0") as remote:
        remote.connect()
        hung = master_of(runtime)
        own_sshd.pause(connections=True)
        with pytest.raises(RemoteError) as caught:
            remote.run_script("true", stall_timeout=0.6)
        assert not hung.is_running()
        own_sshd.resume()
        assert remote.run_script("echo here") == b"here\n"
    assert (caught.value.failure.scope, caught.value.failure.cause) == (
        Scope.CONNECTION,
        "connection stalled",
    )


@pytest.mark.parametrize(
    ("changes", "cause", "transient"),
    [
        ({"port": 1}, "connection refused", True),
        ({"host": "no-such-host.invalid"}, "host name not resolved", True),
        ({"user": "no-such-user"}, "permission denied", False),
        ({"identity": "/no/such/key"}, "identity file unusable", False),
        ({"identity": __file__}, "identity file unusable", False),
        ({"config": "/no/such/config"}, "ssh configuration", False),
        ({"options": {"NoSuchOption": "1"}}, "ssh configuration", False),
        ({"options": {"Port": "1\nUser x"}}, "ssh configuration", False),
        ({"options": {"UserKnownHostsFile": "/dev/null"}}, "host key unknown", False),
        ({"options": {"Ciphers": "aes128-cbc"}}, "no common algorithm", False),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_what_keeps_us_from_connecting_is_told(
    changes: dict[str, object], cause: str, transient: bool, sshd: Sshd, runtime: Path
) -> None:
    options = changes.pop("options", {})
    assert isinstance(options, dict)
    site = sshd.site(**changes, options={**sshd.ssh_section()["options"], **options})
    failure = failure_of(site, runtime)
    assert (failure.scope, failure.cause, failure.transient) == (Scope.CONNECTION, cause, transient)
    assert failure.reason
    assert failure.hint


def test_a_changed_host_key_is_told(own_sshd: Sshd, runtime: Path) -> None:
    own_sshd.renew_host_key()
    own_sshd.stop()
    own_sshd.start()
    failure = failure_of(own_sshd.site(), runtime)
    assert failure.cause == "host key changed"
    assert "has changed" in failure.reason


def test_an_sshd_that_accepts_and_hangs_is_told(own_sshd: Sshd, runtime: Path) -> None:
    own_sshd.pause()
    options = {**own_sshd.ssh_section()["options"], "ConnectTimeout": "1"}
    failure = failure_of(own_sshd.site(options=options), runtime)
    own_sshd.resume()
    assert failure.cause == "ssh does not answer"


def test_an_sshd_that_turns_us_away_is_told(tmp_path: Path, runtime: Path) -> None:
    """As it does beyond MaxStartups: it closes the connection before it has greeted."""
    refusal = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
    )
    program = refusal + "while True: s.accept()[0].close()"
    with Background([sys.executable, "-c", program], output=tmp_path / "port"):
        wait_for(lambda: (tmp_path / "port").read_text().endswith("\n"))
        failure = failure_of(Site("127.0.0.1", port=int((tmp_path / "port").read_text())), runtime)
    assert failure.cause == "connection closed before login"


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("ssh: connect to host archive port 22: Connection timed out", "connection timed out"),
        ("ssh: connect to host archive port 22: No route to host", "no route to the endpoint"),
        ("ssh: connect to host archive port 22: Network is unreachable", "no route to the endpoint"),
        ("kex_exchange_identification: Connection closed by remote host", "connection closed before login"),
        ("kex_exchange_identification: read: Connection reset by peer", "connection closed before login"),
        ("ssh_exchange_identification: Connection closed by remote host", "connection closed before login"),
        ("Received disconnect from ::1 port 22:2: Too many authentication failures", "permission denied"),
        ("Timeout, server archive not responding.", "connection lost"),
        ("client_loop: send disconnect: Broken pipe", "connection lost"),
        ("Connection to archive closed by remote host.", "connection lost"),
        (
            "mux_client_request_session: session request failed: Session open refused by peer",
            "too many sessions",
        ),
        ("Bad owner or permissions on /home/jdoe/.ssh/config", "ssh configuration"),
    ],
)
def test_the_words_of_ssh_are_understood(words: str, cause: str) -> None:
    failure = connection_failure(["Unauthorized access is prohibited.", words, "and more"])
    assert failure is not None
    assert (failure.scope, failure.cause, failure.reason) == (
        Scope.CONNECTION,
        cause,
        words.rstrip("."),
    )


def test_an_ssh_of_version_10_that_is_turned_away_is_told(sshd: Sshd, runtime: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "bin" / "ssh"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\ncase " $* " in\n'
        "*' -M '*) echo 'Connection closed by 10.1.2.3 port 22' >&2; exit 255 ;;\nesac\n"
        'PATH=${PATH#*:}; exec ssh "$@"\n'
    )
    stand_in.chmod(0o755)
    program = (
        "from pathlib import Path; from common.remote import Remote, Site\n"
        "from common.errors import RemoteError\n"
        f"try: Remote({sshd.site()!r}, Path({str(runtime)!r}), 'w0').connect()\n"
        "except RemoteError as error: print(error.failure.cause)"
    )
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    done = run([sys.executable, "-c", program], env={"PATH": path}, cwd=REPOSITORY)
    assert done.stdout == b"connection closed before login\n"


def test_other_words_are_no_news_of_the_connection() -> None:
    assert (
        connection_failure(["mkdir: cannot create directory '/x': Permission denied", "lost files"]) is None
    )


def test_a_missing_ssh_is_this_sites_affair(sshd: Sshd, runtime: Path, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from common.remote import Remote, Site\n"
        "from common.errors import RemoteError\n"
        f"try: Remote({sshd.site()!r}, Path({str(runtime)!r}), 'w0').connect()\n"
        "except RemoteError as error: print(error.failure.scope, error.failure.reason)"
    )
    done = run([sys.executable, "-c", program], env={"PATH": str(tmp_path)}, cwd=REPOSITORY)
    assert done.stdout == b"handoff ssh: not found\n"


def test_what_must_hold_holds_against_the_users_configuration(sshd: Sshd, runtime: Path) -> None:
    config = runtime / "users"
    config.write_text(
        "BatchMode no\nControlPath none\nForwardAgent yes\nRequestTTY force\nRemoteCommand id\n"
    )
    options = {**sshd.ssh_section()["options"], "BatchMode": "no"}
    with Remote(sshd.site(config=str(config), options=options), runtime, "w0") as remote:
        assert effective(remote, "batchmode") == "yes"
        assert effective(remote, "forwardagent") == "no"
        assert remote.run_script("echo here") == b"here\n"


def test_the_users_configuration_wins_over_what_we_prefer(sshd: Sshd, runtime: Path) -> None:
    config = runtime / "users"
    config.write_text("Ciphers aes256-gcm@openssh.com\nHost other\nUser nobody\nPort 1\nConnectTimeout 3\n")
    # Others may write it: ssh would refuse to include such a file, but not to be given it with -F.
    config.chmod(0o666)
    with Remote(sshd.site(config=str(config)), runtime, "w0") as remote:
        assert effective(remote, "ciphers") == "aes256-gcm@openssh.com"
        assert effective(remote, "connecttimeout") == "10"
        assert effective(remote, "serveraliveinterval") == "15"


def test_options_win_over_the_users_configuration(sshd: Sshd, runtime: Path) -> None:
    config = runtime / "users"
    config.write_text("ConnectTimeout 3\nServerAliveInterval 3\n")
    options = {**sshd.ssh_section()["options"], "ConnectTimeout": "7"}
    with Remote(sshd.site(config=str(config), options=options), runtime, "w0") as remote:
        assert effective(remote, "connecttimeout") == "7"
        assert effective(remote, "serveraliveinterval") == "3"


def test_the_fast_cipher_is_preferred(remote: Remote) -> None:
    assert effective(remote, "ciphers").startswith("aes128-gcm@openssh.com,")


def test_an_ssh_that_lacks_the_preferred_cipher_does_without(
    sshd: Sshd, runtime: Path, tmp_path: Path
) -> None:
    old = tmp_path / "bin" / "ssh"
    old.parent.mkdir()
    old.write_text(
        "#!/bin/sh\n"
        f"if grep -q '^Ciphers ^' {runtime}/w0.conf; then\n"
        "    echo \"Bad SSH2 cipher spec '^aes128'.\" >&2; exit 255\nfi\n"
        'PATH=${PATH#*:}; exec ssh "$@"\n'
    )
    old.chmod(0o755)
    program = (
        "from pathlib import Path; from common.remote import Remote, Site\n"
        f"with Remote({sshd.site()!r}, Path({str(runtime)!r}), 'w0') as remote:\n"
        "    print(remote.run_script('echo here'))"
    )
    path = f"{old.parent}:{os.environ['PATH']}"
    assert run([sys.executable, "-c", program], env={"PATH": path}, cwd=REPOSITORY).stdout == b"b'here\\n'\n"


def test_names_of_files_stand_for_themselves(sshd: Sshd, tmp_path: Path) -> None:
    odd = tmp_path / "o d%h'\\"
    odd.mkdir()
    key = odd / "a %u key"
    key.write_bytes(sshd.identity.read_bytes())
    key.chmod(0o600)
    with Remote(sshd.site(identity=str(key)), odd, "w0") as remote:
        assert remote.run_script("echo here") == b"here\n"
        assert (odd / f"w0.{os.getpid()}").is_socket()


def test_a_socket_whose_name_would_be_too_long_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(DbbError, match="too long") as caught:
        Remote(sshd.site(), tmp_path / ("x" * 90), "w0")
    assert "TMPDIR" in caught.value.hint


def test_an_own_command_takes_the_place_of_the_kept_connection(sshd: Sshd, runtime: Path) -> None:
    options = " ".join(f"-o {key}={value}" for key, value in sshd.ssh_section()["options"].items())
    template = f'ssh -F {{config}} {options} -i {{key}} -p {{port}} -o BatchMode=yes {{host}} "{{command}}"'
    parameters = {
        "host": sshd.host,
        "port": str(sshd.port),
        "key": str(sshd.identity),
        "config": str(sshd.directory / "ssh_config"),
    }
    site = sshd.site(remote_template=template, parameters=parameters)
    before = logins(sshd)
    with Remote(site, runtime, "w0") as remote:
        assert remote.run_script("cat", EVERY_BYTE) == EVERY_BYTE
        assert remote.run_script("cat", EVERY_BYTE) == EVERY_BYTE
    assert logins(sshd) == before + 2


def test_an_own_command_that_cannot_connect_is_told_like_ssh(runtime: Path) -> None:
    site = Site(
        "127.0.0.1", remote_template='ssh -F /dev/null -p 1 {host} "{command}"', parameters={"host": "::1"}
    )
    with Remote(site, runtime, "w0") as remote, pytest.raises(RemoteError) as caught:
        remote.run_script("true")
    assert caught.value.failure.cause == "connection refused"


def test_words_of_a_template_are_split_before_they_are_filled() -> None:
    words = split_template("scp -o 'A b' {file} {user}@{host}:{dest}")
    values = {"file": b"/a b/{user}\xff$(id)", "user": b"j d", "host": b"h", "dest": b"/s"}
    assert fill(words, values) == [b"scp", b"-o", b"A b", b"/a b/{user}\xff$(id)", b"j d@h:/s"]


@pytest.mark.parametrize(
    "value", [b"", b"a b", b"'", b"''\"$(id)`id`\\\n\t*?~!#", bytes(range(1, 256))], ids=repr
)
def test_a_quoted_word_is_read_as_itself(value: bytes) -> None:
    assert run([b"sh", b"-c", b"printf %s " + quote(value)]).stdout == value


def test_an_address_with_colons_is_bracketed_where_a_colon_follows() -> None:
    assert (Site("::1").target, Site("example.org").target) == ("[::1]", "example.org")
