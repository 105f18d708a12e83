"""Passwords in storage URLs are never shown or stored, in any spelling of the URL and by any command."""

import pytest
import sqlalchemy
from werkzeug.test import Client

from studies import load_study, mask_password
from studies.dashboard.server import Address
from studies.dashboard.view import dashboard_app
from studies.storage.url import without_password

CANARY = "c4n4ry"
SERVER = "127.0.0.1:1/db?connect_timeout=2"
# Malformed URLs and URLs of other programs, which are refused before any connection attempt.
UNUSABLE = {
    "libpq keywords": f"host=127.0.0.1 user=u password={CANARY}",
    "a password alone": CANARY,
    "no scheme": f"u:{CANARY}@{SERVER}",
    "one slash": f"postgresql:/u:{CANARY}@{SERVER}",
    "no host": f"postgresql+psycopg://u:{CANARY}",
    "a scheme in capitals": f"POSTGRESQL://u:{CANARY}@{SERVER}",
    "an old scheme": f"postgres://u:{CANARY}@{SERVER}",
    "MySQL": f"mysql://u:{CANARY}@{SERVER}",
    "the web": f"https://u:{CANARY}@{SERVER}",
    "a Windows path": f"C:\\studies\\{CANARY}.db",
    "SQLite with an account": f"sqlite://u:{CANARY}@/study.db",
    "SQLite with an option": f"sqlite:///study.db?password={CANARY}",
    "SQLite with a fragment": f"sqlite:///study.db#password={CANARY}",
    "a fragment": f"postgresql+psycopg://u@127.0.0.1:1/db#password={CANARY}",
    "a fragment of an option": f"postgresql+psycopg://u@{SERVER}#password={CANARY}",
    "a semicolon": f"postgresql+psycopg://u@127.0.0.1:1/db;password={CANARY}",
    "a semicolon in an option": f"postgresql+psycopg://u@127.0.0.1:1/db?x=1;password={CANARY}",
    "an unknown option": f"postgresql+psycopg://u@{SERVER}&PassWord={CANARY}",
    "an option without a value": f"postgresql+psycopg://u:12?{CANARY}=",
    "two @": f"postgresql+psycopg://u:a@{CANARY}@{SERVER}",
    "a wrong port": f"postgresql+psycopg://u:{CANARY}@127.0.0.1:99999/db",
    "text as port": f"postgresql+psycopg://u:{CANARY}@127.0.0.1:{CANARY}/db",
    "an account in brackets": f"postgresql+psycopg://[u:{CANARY}]:1/db",
    "an account that is quoted": f"postgresql+psycopg://u%3A{CANARY}@{SERVER}",
    "an @ in an option": f"postgresql+psycopg://{SERVER}&user=u&password=a@{CANARY}",
    "a slash in a password": f"postgresql+psycopg://u:12/{CANARY}@{CANARY}:1/db",
    "two lines": f"postgresql+psycopg://u@127.0.0.1:1/db\npassword={CANARY}",
    "bytes that are no text": f"postgresql+psycopg://u:{CANARY}\udcff@{SERVER}",
}
# Valid URLs without a server on that port.
USABLE = {
    "an account": f"postgresql+psycopg://u:{CANARY}@{SERVER}",
    "blanks, an @ and Khmer": f"postgresql+psycopg://u:ខ្មែរ %40{CANARY}@{SERVER}",
    "a null byte": f"postgresql+psycopg://u:{CANARY}%00{CANARY}@{SERVER}",
    "IPv6": f"postgresql://u:{CANARY}@[::1]:1/db?connect_timeout=2",
    "an option": f"postgresql+psycopg://{SERVER}&user=u&password={CANARY}",
    "an option that is quoted": f"postgresql+psycopg://u@{SERVER}&p%61ssword={CANARY}",
    "two of them": f"postgresql+psycopg://u@{SERVER}&password={CANARY}&password={CANARY}",
    "OAuth and TLS": f"postgresql+psycopg://u@{SERVER}&oauth_client_secret={CANARY}&sslpassword={CANARY}",
}
COMMANDS = (
    "run --config {config}",
    "search --trials 1",
    "enqueue --trials 1",
    "best --out best.yaml",
    "predict {config}",
    "status --json",
    "show 0",
    *("resume", "worker", "stop", "export", "report", "dashboard", "confirm", "clean"),
)


@pytest.mark.parametrize("url", [*UNUSABLE.values(), *USABLE.values()], ids=[*UNUSABLE, *USABLE])
def test_displayed_and_stored_urls_have_no_password(url):
    assert CANARY not in mask_password(url)
    assert CANARY not in without_password(url)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_shows_the_password_of_an_unusable_storage(command, cli, run_study, working_dir, tree):
    before = tree(run_study.folder)
    argv = command.format(config=run_study.config).split()
    for case, url in (UNUSABLE | USABLE).items():
        done = cli(*argv, "--output-dir", run_study.folder, "--debug", "--storage", url)
        assert (done.code, CANARY in done.out + done.err) == (2, False), (case, done)
        assert done.err
    assert tree(run_study.folder) == before
    assert list(working_dir.iterdir()) == []


def test_password_in_the_variable_or_in_a_wrong_option_is_not_shown(cli, monkeypatch):
    url = USABLE["an account"]
    for argv in (["run", url], ["run", f"--storag={url}"], ["run", "--storage", "host=h", f"password={CANARY}"]):
        done = cli(*argv)
        assert (done.code, CANARY in done.out + done.err) == (2, False), (argv, done)
    for case, url in UNUSABLE.items():
        if "\udcff" not in url:
            monkeypatch.setenv("KHMER_TUNER_STORAGE", url)
            done = cli("status", "--output-dir", "out", "--debug")
            assert (done.code, CANARY in done.out + done.err) == (2, False), (case, done)
    assert CANARY not in cli("run", "--help").out


@pytest.mark.parametrize(
    "options",
    [
        pytest.param("password={}", marks=pytest.mark.slow),
        "p%61ssword={}",
        pytest.param("oauth_client_secret={}&sslpassword={}", marks=pytest.mark.slow),
    ],
)
def test_password_never_appears_in_any_output_or_file_of_a_study(
    options, cli, new_database, write_config, working_dir, tmp_path, monkeypatch
):
    made = sqlalchemy.make_url(new_database())
    canary = str(made.password)
    kept = made if "&" in options else made._replace(password=None)
    url = f"{kept.render_as_string(hide_password=False)}?{options.format(canary, canary)}"
    monkeypatch.delenv("PGPASSWORD")
    config = write_config({"one": {}})
    outputs = []

    def call(command, storage=url):
        done = cli(*command.split(), "--output-dir", "out", "--debug", "--storage", storage)
        outputs.append(done.out + done.err)
        assert done.code == 0 or storage != url, (command, done)

    call(f"run --config {config} --results-file results.json")
    for command in ("status --json", "status", "export --results-file again.json", "report --out page.html", "show 0"):
        call(command)
    for command in ("best --out best.yaml", "stop", "enqueue --trials 1", "search --trials 1", "resume", "worker"):
        call(command)
    study, folder = load_study("out", storage_url=url)
    browser = Client(dashboard_app(study, folder, Address.of("127.0.0.1"), log=outputs.append, debug=True))
    for path in ("/dashboard/studies/1", "/api/meta", "/api/studies", "/api/studies/1?after=0", "/csv/1"):
        outputs.append(browser.get(path, headers={"Host": "127.0.0.1"}).text)
    for wrong in (url.replace(f":{made.port}/", ":1/"), url.replace(made.database or "", "missing"), url + "&x=1"):
        call("status", wrong)
        call("resume", wrong)
    assert len(outputs) > 20
    assert [text for text in outputs if canary in text] == []
    files = [path for place in (working_dir, tmp_path) for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "owner.json" for path in files)
    assert [path for path in files if canary.encode() in path.read_bytes()] == []
