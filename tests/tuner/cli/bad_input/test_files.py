"""Configuration files that are not regular or readable, invalid paths, and contradictions with an existing study."""

import os

import pytest

COMMANDS = [["run", "--config"], ["validate"]]


@pytest.fixture
def odd_files(working_dir):
    (working_dir / "folder").mkdir()
    (working_dir / "folder" / "inside.yaml").write_text("experiments: {a: {}}")
    (working_dir / "loop.yaml").symlink_to("loop.yaml")
    (working_dir / "dangling.yaml").symlink_to("missing.yaml")
    os.mkfifo(working_dir / "pipe.yaml")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder", "folder: cannot be read (it is a folder); use a YAML file in this folder: inside.yaml"),
        ("pipe.yaml", "pipe.yaml: cannot be read (it is not a regular file); use a YAML file"),
        ("/dev/null", "/dev/null: cannot be read (it is not a regular file); use a YAML file"),
        ("/dev/zero", "/dev/zero: cannot be read (it is not a regular file); use a YAML file"),
        ("/proc/self/mem", "/proc/self/mem: cannot be read (Input/output error); check the file and its permissions"),
        (
            "dangling.yaml",
            "configuration file not found: dangling.yaml; it is a broken symbolic link to missing.yaml; repair "
            "the link",
        ),
        (
            "loop.yaml",
            "configuration file not found: loop.yaml; it is a broken symbolic link to loop.yaml; repair the link",
        ),
        (
            "pipe.yml",
            "configuration file not found: pipe.yml; looked for <here>/pipe.yml and <package>/pipe.yml; "
            "did you mean <here>/pipe.yaml?",
        ),
    ],
)
def test_files_that_are_not_configurations_are_refused(refused, odd_files, command, name, expected):
    assert refused([*command, name]) == [expected]


@pytest.mark.parametrize("key", ["--config", "--space"])
def test_files_that_are_not_search_spaces_are_refused(refused, odd_files, key):
    argv = {"--config": "<config>"} | {key: "pipe.yaml"}
    (problem,) = refused(["run", *(word for pair in argv.items() for word in pair)])
    assert problem == "pipe.yaml: cannot be read (it is not a regular file); use a YAML file"


@pytest.mark.parametrize("command", ["status", "export", "resume", "stop", "report", "best", "dashboard"])
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("x" * 300, "there is no such folder; choose the --output-dir of a study"),
        ("\x1b[31mred", "<here>/\\x1b[31mred: there is no such folder"),
        ("<config>", "<config>: "),
    ],
)
def test_invalid_output_folders_are_refused(refused, command, folder, expected):
    assert expected in "\n".join(refused([command, "--output-dir", folder]))


@pytest.mark.parametrize(
    "command", [["export", "--results-file"], ["report", "--out"], ["best", "--out"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pipe.yaml", "this is a device or a pipe; expected a file; choose another path"),
        ("x" * 300, "the name of a file or folder has at most 255 bytes; choose another file"),
        ("a\tb", "found the character '\\t' in the path, which a name must not contain; choose another file"),
        ("folder", "this is a folder; expected a file; add a file name"),
        ("no/such/file", "there is no folder <here>/no/such; create it first"),
    ],
)
def test_unwritable_results_files_are_refused(refused, run_study, odd_files, command, path, expected):
    (problem,) = refused([*command, path, "--output-dir", str(run_study.folder)])
    assert problem.endswith(expected)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["--storage", "nonsense"],
            "storage URL: found '***'; it does not begin with a known scheme in lower case; use sqlite:///PATH "
            "or postgresql+psycopg://USER@HOST:5432/DATABASE",
        ),
        (["--study", "another"], "it belongs to the study 'khmer-ocr', not to 'another'; choose another --output-dir"),
        (["--storage", "sqlite:///other.db"], "pass that URL as --storage, or choose another --output-dir"),
    ],
)
def test_options_that_contradict_an_existing_study_are_refused(refused, run_study, argv, expected):
    assert expected in "\n".join(refused([*run_study.run_again, *argv]))


def test_a_changed_experiment_is_refused_with_the_difference(refused, run_study, working_dir):
    text = run_study.config.read_text(encoding="utf-8")
    (working_dir / "changed.yaml").write_text(text.replace("batch_size: 8", "batch_size: 4"), encoding="utf-8")
    problems = refused(["run", "--config", "changed.yaml", "--output-dir", str(run_study.folder)])
    assert len(problems) == 2
    assert all("batch_size" in text for text in problems)


def test_problems_of_options_and_files_are_reported_together(refused, working_dir):
    (working_dir / "wrong.yaml").write_text("experiments: {a: {model: {name: no_such}, training: {batchsize: 3}}}")
    argv = ["--device", "gpu", "--seed", "x", "--storage", "sqlite://", "--study", "a/b", "--results-file", "no/r.json"]
    assert len(refused(["run", "--config", "wrong.yaml", *argv])) == 7


def test_huge_file_is_not_read_as_a_configuration(refused, working_dir):
    (working_dir / "large.yaml").write_text("# filler\n" * 40_000)
    (problem,) = refused(["run", "--config", "large.yaml"])
    assert problem == (
        "large.yaml: cannot be read (the file has 360,000 bytes; expected at most 262,144); use a configuration file "
        "(a dataset's metadata.yaml is set with 'data.metadata_path')"
    )
