"""Every command, program, file and link of the READMEs works as printed, on the documented presets."""

import contextlib
import functools
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from sqlalchemy import make_url

from search_spaces import load_experiments, load_search_space
from studies.storage.url import without_password
from tuner.cli.commands import COMMAND_GROUPS, COMMANDS
from tuner.cli.parser import parse
from tuner.data.generation.fonts import system_font_folders

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDIES = (ROOT / "studies" / "README.md").read_text(encoding="utf-8")
SCRIPTS = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
MAX_LINES = 275


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


LINES = [line for block in blocks("bash") for line in block.splitlines()]
SETUP = [command for command in LINES if command.startswith("bash scripts/")]
APT = [command for command in LINES if command.startswith("sudo apt-get install ")]
COMMAND_LINES = [command for command in LINES if command not in (*SETUP, *APT)]
(SEVERAL_MACHINES,) = blocks("sh")


def sections():
    """Return the text below each heading of the README."""
    parts = re.split(r"^## (.*)\n", README, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def files():
    """Return the YAML files that the README shows, keyed by the path in the first line of each file."""
    (block,) = blocks("yaml")
    parts = re.split(r"^# (\S+\.yaml)\n", block, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write_files(folder):
    """Write these files, and the images that their dataset names."""
    for path, text in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    metadata = yaml.safe_load(files()["my_data/metadata.yaml"])
    for sample in metadata["train"]["samples"] + metadata["val"]["samples"]:
        (folder / sample["image_path"]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (128, 64), "white").save(folder / sample["image_path"])


def test_the_readme_is_short_enough_to_be_read_as_a_whole():
    assert len(README.splitlines()) <= MAX_LINES


def test_the_readme_has_its_sections_in_the_expected_order():
    assert list(sections()) == [
        "Quick start",
        "Concepts",
        "Commands",
        "Search, stop and resume",
        "Monitoring",
        "Using the best model",
        "Your own data, models and search space",
        "Several machines",
        "Architecture",
        "Development",
        "Results",
        "Troubleshooting",
    ]


def test_the_two_setup_commands_are_run_by_ci():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    full_run = (ROOT / "tests" / "test_full_run.py").read_text(encoding="utf-8")
    assert SETUP == ["bash scripts/run.sh", "bash scripts/test.sh"]
    assert "set -e" in ci
    assert re.findall(r"^bash .*", ci, flags=re.MULTILINE) == [
        "bash scripts/test.sh",
        "bash scripts/test.sh -m slow -n 0 tests/test_full_run.py",
        "bash scripts/test.sh -m slow --ignore tests/test_full_run.py",
    ]
    assert '"bash", str(ROOT / "scripts" / "run.sh")' in full_run


def test_the_packages_of_the_system_are_installed_by_ci():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert APT
    for command in APT:
        assert [package for package in command.split()[3:] if package not in ci] == []


@pytest.mark.parametrize("readme", ["README.md", "scripts/README.md", "studies/README.md", "search_spaces/README.md"])
def test_links_point_to_existing_files_and_headings(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = ((ROOT / readme).parent / path).resolve() if path else ROOT / readme
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], link


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_table_of_commands_names_every_command(command):
    assert f"| `{command.name}` |" in sections()["Commands"]


@pytest.mark.parametrize("readme", ["README.md", "scripts/README.md", "studies/README.md", "search_spaces/README.md"])
def test_commands_in_sentences_have_existing_options(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    for line in re.findall(r"`khmer-tuner ([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        name, *words = shlex.split(re.sub(r"\bN\b", "1", line))
        assert name in {"COMMAND", *(command.name for command in COMMANDS)}
        if words and name != "COMMAND":
            _, options = parse([name, *words], COMMAND_GROUPS)
            assert options.problems == [], line


MAP = sections()["Architecture"] + sections()["Development"]


@pytest.mark.parametrize("path", re.findall(r"`((?:tuner|studies|search_spaces|scripts|tests)[\w/.]*)`", MAP))
def test_paths_in_the_architecture_map_exist(path):
    assert (ROOT / path).exists()


def test_the_architecture_map_names_every_folder_of_the_packages():
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for package in ("tuner", "studies", "search_spaces")
        for path in (ROOT / package).glob("*/**/__init__.py" if package != "search_spaces" else "__init__.py")
    }
    assert [folder for folder in sorted(folders) if f"`{folder}`" not in MAP] == []


def test_the_example_files_are_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    (experiment,) = load_experiments("my_experiments.yaml").experiments.values()
    assert (experiment.model_name, experiment.metadata_path) == ("narrow", "my_data/metadata.yaml")
    assert load_search_space("my_space.yaml") is not None


@pytest.mark.slow
def test_commands_work_as_printed(trained_folder, shell):
    write_files(trained_folder)
    has_fonts = any(folder.joinpath("truetype", "khmeros").exists() for folder in system_font_folders())
    for command in COMMAND_LINES:
        if "font_data" in command and not has_fonts:
            continue
        done = shell(shlex.split(command, comments=True), trained_folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("program", blocks("python"))
def test_programs_work_as_printed(program, trained_folder, shell):
    done = shell(["python", "-c", program], trained_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(list((trained_folder / "generated_data" / "test").iterdir()))


@pytest.mark.slow
def test_commands_for_several_machines_work_as_printed(trained_folder, shell, environment, new_database, monkeypatch):
    shutil.rmtree(trained_folder / "training_output")
    other_machine = trained_folder / "other_machine"
    shutil.copytree(trained_folder / "generated_data", other_machine / "generated_data")
    export, *commands = [shlex.split(line, comments=True) for line in SEVERAL_MACHINES.splitlines()]
    assert export[1].startswith("KHMER_TUNER_STORAGE=postgresql+psycopg://")
    # In the README, the password is set outside the commands.
    url = new_database()
    monkeypatch.setitem(environment, "PGPASSWORD", str(make_url(url).password))
    monkeypatch.setitem(environment, "KHMER_TUNER_STORAGE", without_password(url))
    with contextlib.ExitStack() as workers:
        for command in commands:
            if "worker" in command:
                workers.enter_context(running_worker(command, other_machine, environment))
                continue
            while "stop" in command and "pending:" in shell(["khmer-tuner", "status"], trained_folder).stdout:
                time.sleep(1)
            done = shell(command, trained_folder)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def running_worker(command, folder, environment):
    """Run a worker in a folder; at the end it must have stopped on request, after training a trial."""
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stderr is not None
            while "waiting for new trials" not in next(worker.stderr):
                pass
            yield
            messages = worker.communicate(timeout=120)[1]
            assert worker.returncode == 0, messages
            assert "search_0001" in messages
        finally:
            worker.kill()


def test_the_service_and_the_cluster_jobs_start_workers():
    text = "".join(blocks("ini", STUDIES) + blocks("sh", STUDIES))
    started = [line.removesuffix(" &").split() for line in re.findall(r"khmer-tuner (worker .*)", text)]
    (manifest,) = blocks("yaml", STUDIES)
    (job,) = (document for document in yaml.safe_load_all(manifest) if document["kind"] == "Job")
    started += [container["args"] for container in job["spec"]["template"]["spec"]["containers"]]
    assert len(started) == 4
    for arguments in started:
        _, options = parse(arguments, COMMAND_GROUPS)
        assert options.metadata == "generated_data/metadata.yaml"


SCRIPT_LINES = [line for block in blocks("bash", SCRIPTS) for line in block.splitlines()]


@pytest.fixture(scope="module")
def help_of(shell):
    """Return the output of `--help` of a script; each script, which may import PyTorch, runs only once."""
    return functools.cache(lambda script: shell(["python", str(ROOT / script), "--help"], ROOT.parent).stdout)


@pytest.mark.parametrize("line", SCRIPT_LINES + re.findall(r"`(python scripts/[^`]+)`", README))
def test_scripts_have_the_options_that_the_readme_gives_them(line, help_of):
    program, *arguments = shlex.split(line, comments=True)
    if program == "bash":
        assert (ROOT / arguments[0]).is_file()
        return
    assert program == "python"
    if arguments[:2] == ["-m", "pytest"]:
        assert all((ROOT / argument).exists() for argument in arguments if argument.startswith("tests/"))
        return
    help_text = help_of(arguments[0])
    assert [argument for argument in arguments[1:] if argument.startswith("--") and argument not in help_text] == []
