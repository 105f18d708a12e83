"""The Slurm script, the Kubernetes manifest and the Dockerfile work as documented: stop, node failure, errors."""

import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from optuna.trial import TrialState
from sqlalchemy import make_url

from studies import load_study, read_record
from studies.storage.url import without_password
from studies.trials.record import StartedAfter

# Types of conftest.py, which cannot be imported.

ROOT = Path(__file__).parents[3]
README = (ROOT / "studies" / "README.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "scripts" / "Dockerfile").read_text(encoding="utf-8").splitlines()
# Versions of Kubernetes: the first in which all fields of the manifest are stable, and the latest known one.
VERSIONS = ("1.33", kubernetes_validate.latest_version())
EPOCHS = 40
EXPERIMENTS = {
    "zero": {"training": {"num_epochs": 1}},
    "one": {"training": {"num_epochs": EPOCHS}, "early_stopping": {"patience": EPOCHS}},
    "two": {"training": {"learning_rate": 0.002}},
}
PATIENCE_S = 120.0

# The last element of the array, so that SLURM_JOB_ID is the id of the whole array, as in Slurm's documentation.
SLURM_VARIABLES = {
    "SLURM_JOB_ID": "36",
    "SLURM_ARRAY_JOB_ID": "36",
    "SLURM_ARRAY_TASK_ID": "8",
    "SLURM_CPUS_PER_TASK": "4",
}
# As Slurm's srun: the task runs in a session of its own; SIGTERM to srun kills the task ("forcing job termination");
# the exit code is that of the task, or 128 + the signal that ended it.
SRUN = """
import os, signal, subprocess, sys
assert sys.argv[1] == "--cpus-per-task=4", sys.argv
task = subprocess.Popen(sys.argv[2:], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: os.killpg(task.pid, signal.SIGKILL))
with open("step.pid", "w") as file:
    file.write(str(task.pid))
code = task.wait()
sys.exit(code if code >= 0 else 128 - code)
"""
# As Slurm's scancel: with --signal, it sends the signal to all processes of the steps and not to the batch script.
SCANCEL = """
import os, signal, sys
assert sys.argv[1:] == ["--signal=TERM", "36_8"], sys.argv
with open("step.pid") as file:
    os.killpg(int(file.read()), signal.SIGTERM)
"""
SCONTROL = """
import sys
with open("scontrol.txt", "a") as file:
    print(*sys.argv[1:], file=file)
"""


class SlurmElement:
    """The documented script as an element of a job array."""

    def start(self, folder, environment):
        self._folder = folder
        programs = folder / "programs"
        for name, text in {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL}.items():
            programs.mkdir(exist_ok=True)
            (programs / name).write_text(f"#!{sys.executable} -S{text}")
            (programs / name).chmod(0o755)
        script = re.sub(r"^export KHMER_TUNER_STORAGE=.*\n", "", slurm_script(), flags=re.MULTILINE)
        assert script != slurm_script()
        (folder / "job.sh").write_text(script)
        path = f"{programs}{os.pathsep}{environment['PATH']}"
        with (folder / "slurm.out").open("ab") as output:
            self._batch = subprocess.Popen(
                ["bash", "job.sh"],
                cwd=folder,
                env={**environment, **SLURM_VARIABLES, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def stop(self):
        # With `B:`, only the batch shell gets the signal. It must end before the time limit.
        self._batch.send_signal(signal.SIGTERM)
        return self._batch.wait(60)

    def fail_node(self):
        os.killpg(self._batch.pid, signal.SIGKILL)
        os.killpg(int((self._folder / "step.pid").read_text()), signal.SIGKILL)
        self._batch.wait()

    def wait(self):
        return self._batch.wait(PATIENCE_S)

    def requeues(self):
        requests = self._folder / "scontrol.txt"
        return requests.read_text().splitlines() if requests.exists() else []


class KubernetesPod:
    """The documented container; its process has the id 1, so it ignores signals for which it has no handler."""

    def start(self, folder, environment):
        pod = manifest()["Job"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["workingDir"] == container["volumeMounts"][0]["mountPath"]
        self._grace_s = pod["terminationGracePeriodSeconds"]
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *entrypoint(), *container["args"]]
        with (folder / "pod.out").open("ab") as output:
            self._namespace = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def stop(self):
        pid = self._namespace.pid
        process = Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
        status = Path(f"/proc/{process}/status").read_text()
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
        os.kill(int(process), signal.SIGTERM)
        return self._namespace.wait(self._grace_s)

    def fail_node(self):
        self._namespace.kill()
        self._namespace.wait()

    def wait(self):
        return self._namespace.wait(PATIENCE_S)

    def requeues(self):
        return []


@pytest.fixture(params=[SlurmElement, KubernetesPod])
def worker(request):
    if request.param is KubernetesPod:
        probe = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True)
        if probe.returncode:
            pytest.skip(f"no process namespace can be created here: {probe.stderr.strip()}")
    started = request.param()
    yield started
    # Does nothing to a process that has exited.
    for process in (getattr(started, "_batch", None), getattr(started, "_namespace", None)):
        if process is not None and process.poll() is None:
            started.fail_node()


@pytest.fixture
def cluster_environment(environment, new_database, monkeypatch):
    """Return the environment of workers and commands, with the storage URL and, as in ~/.pgpass, the password."""
    url = new_database()
    variables = {"KHMER_TUNER_STORAGE": without_password(url), "PGPASSWORD": str(make_url(url).password)}
    for name, value in variables.items():
        monkeypatch.setitem(environment, name, value)
    return environment


@pytest.mark.slow
def test_worker_resumes_its_trial_after_a_stop_and_after_a_node_failure(
    worker, cluster_environment, write_config, tiny_dataset, shell, tmp_path
):
    shutil.copytree(tiny_dataset.parent, tmp_path / "generated_data")
    for command, *experiments in (("run", "zero"), ("enqueue", "one", "two")):
        options = ["--config", str(write_config(EXPERIMENTS)), "--experiments", *experiments]
        done = shell(["khmer-tuner", command, *options], tmp_path)
        assert done.returncode == 0, done.stderr

    worker.start(tmp_path, cluster_environment)
    wait_for_epochs(tmp_path, 4)  # so that the third has been reported: an epoch's line is written before its report
    assert worker.stop() == 143, output_of(tmp_path)
    requeues = ["requeue Incomplete 36_8"] if isinstance(worker, SlurmElement) else []
    assert worker.requeues() == requeues
    assert states(shell, tmp_path) == ["completed", "interrupted", "waiting"]

    worker.start(tmp_path, cluster_environment)
    wait_for_epochs(tmp_path, len(epochs_of(tmp_path)) + 3)
    worker.fail_node()
    assert states(shell, tmp_path) == ["completed", "interrupted", "waiting"]

    worker.start(tmp_path, cluster_environment)
    assert worker.wait() == 0, output_of(tmp_path)
    assert worker.requeues() == requeues
    study, _ = load_study(tmp_path / "training_output", storage_url=cluster_environment["KHMER_TUNER_STORAGE"])
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    _, one, two = (read_record(trial).attempts for trial in trials)
    assert [attempt.after for attempt in one[1:]] == [StartedAfter.STOP, StartedAfter.CRASH]
    assert 3 <= one[1].epochs < one[2].epochs
    assert len(two) == 1
    assert epochs_of(tmp_path) == list(range(1, EPOCHS + 1))


def wait_for_epochs(folder, epochs):
    deadline = time.monotonic() + PATIENCE_S
    while len(epochs_of(folder)) < epochs:
        assert time.monotonic() < deadline, output_of(folder)
        time.sleep(0.02)


def epochs_of(folder):
    """Return the epochs of the first trial in its metrics file."""
    path = folder / "training_output" / "one" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["epoch"] for line in lines]


def output_of(folder):
    return "".join(path.read_text() for path in folder.glob("*.out"))


def states(shell, folder):
    status = shell(["khmer-tuner", "status", "--json"], folder)
    return [trial["state"] for trial in json.loads(status.stdout)["trials"]]


@pytest.mark.slow
def test_slurm_element_fails_and_is_not_requeued_if_its_worker_fails(cluster_environment, tmp_path):
    element = SlurmElement()
    element.start(tmp_path, cluster_environment)  # neither a dataset nor a study exists
    assert element.wait() == 2, output_of(tmp_path)
    assert element.requeues() == []


def test_slurm_options_request_requeues_and_a_signal_to_the_script():
    lines = slurm_script().splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = [line for line in lines if line.startswith("#SBATCH ")]
    # sbatch ignores options after the first command.
    assert lines[1 : 1 + len(directives)] == directives
    options = [option for line in directives for option in shlex.split(line)[1:]]
    assert {"--array=1-8", "--requeue", "--signal=B:TERM@60", "--open-mode=append"} <= set(options)


@pytest.mark.parametrize("version", VERSIONS)
def test_manifest_is_valid_kubernetes(version):
    assert list(manifest()) == ["Secret", "PersistentVolumeClaim", "Job"]
    for document in manifest().values():
        kubernetes_validate.validate(document, version, strict=True)


def test_misspelt_keys_and_wrong_types_are_rejected():
    for changes in ({"backoffLimitPerIndx": 10}, {"completions": "8"}):
        job = copy.deepcopy(manifest()["Job"])
        job["spec"] |= changes
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_manifest_follows_the_rules_that_the_schema_does_not_contain():
    documents = manifest()
    job = documents["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    # `backoffLimitPerIndex` requires these two; `podFailurePolicy` would keep the pods of a lost node.
    assert (job["completionMode"], pod["restartPolicy"]) == ("Indexed", "Never")
    assert "podFailurePolicy" not in job
    assert job["completions"] == job["parallelism"]
    names = [reference["secretRef"]["name"] for reference in container["envFrom"]]
    assert names == [documents["Secret"]["metadata"]["name"]]
    assert make_url(documents["Secret"]["stringData"]["KHMER_TUNER_STORAGE"]).drivername == "postgresql+psycopg"
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    mounted = [claims[mount["name"]] for mount in container["volumeMounts"]]
    assert mounted == [documents["PersistentVolumeClaim"]["metadata"]["name"]]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert container["resources"]["limits"] == container["resources"]["requests"]
    # Kubernetes can check a user only if the image names it by number.
    user = instructions("USER")[-1][0]
    assert pod["securityContext"] == {"runAsNonRoot": True, "fsGroup": int(user)}


def test_image_contains_the_installed_project(shell, tmp_path):
    context = tmp_path / "context"
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for *sources, target in instructions("COPY"):
        assert set(sources) <= admitted
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, context / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (context / target).mkdir(exist_ok=True, parents=True)
                shutil.copy(ROOT / source, context / target)
    pip = ["python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = shell([*pip, "--target", "../image", "."], context)
    assert done.returncode == 0, done.stderr
    packages = ("search_spaces", "studies", "tuner")
    assert files_of(tmp_path / "image", packages) == files_of(ROOT, packages)
    # Each extra that the image installs exists.
    metadata = next((tmp_path / "image").glob("*.dist-info/METADATA")).read_text()
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", "\n".join(DOCKERFILE))
    assert set(extras.split(",")) <= set(re.findall(r"^Provides-Extra: (\S+)", metadata, re.MULTILINE))


def test_container_runs_the_program_without_a_shell():
    assert entrypoint() == ["khmer-tuner"]
    assert f"docker build -f scripts/Dockerfile -t {manifest_image()} ." in README


def files_of(folder, packages):
    """Return the files of packages, without bytecode and documentation."""
    paths = [path for package in packages for path in (folder / package).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix() for path in paths if path.suffix not in (".pyc", ".md")}


def block(language, heading):
    """Return the block of code in a section of the README."""
    section = README.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return str(text)


def slurm_script():
    return block("sh", "Slurm")


def manifest():
    """Return the documents of the Kubernetes manifest, keyed by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(block("yaml", "Kubernetes"))}


def manifest_image():
    return str(manifest()["Job"]["spec"]["template"]["spec"]["containers"][0]["image"])


def instructions(name):
    """Return the arguments of the Dockerfile's instructions with a name."""
    return [line.split()[1:] for line in DOCKERFILE if line.startswith(f"{name} ")]


def entrypoint():
    """Return the image's program; a JSON list, because a shell would not forward SIGTERM."""
    (arguments,) = instructions("ENTRYPOINT")
    words = json.loads(" ".join(arguments))
    return words
