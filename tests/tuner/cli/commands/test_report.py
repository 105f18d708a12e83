"""`report`: the file that it writes and the paths that it refuses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_report_is_written_and_its_path_printed(cli, run_study, tree):
    before = tree(run_study.folder)
    done = cli("report", "--output-dir", run_study.folder)
    assert (done.code, done.out) == (0, "report.html\n")
    assert re.search(r"report written \(\d\.\d MB\)", done.err)
    html = Path("report.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "<strong>ខ្មែរ</strong>" in html
    assert '<td class="word">broken</td>' in html
    assert tree(run_study.folder) == before
    assert [path.name for path in Path().iterdir()] == ["report.html"]


def test_report_has_curves_and_example_images_of_the_winner(cli, run_study):
    cli.ok("report", "--output-dir", run_study.folder, "--out", "winner.html")
    html = Path("winner.html").read_text(encoding="utf-8")
    winner = html.partition('<section id="winner">')[2].partition("</section>")[0]
    assert winner.count('<img src="data:image/png;base64,') == 2
    assert '"name":"sequences, validation"' in winner
    assert 'class="missing"' not in winner


def test_report_overwrites_an_earlier_report(cli, run_study):
    Path("report.html").write_text("")
    for _ in range(2):
        cli.ok("report", "--output-dir", run_study.folder)
    assert [path.name for path in Path().iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("folder", "this is a folder; expected a file; add a file name"),
        ("missing/report.html", "there is no folder"),
        ("notes.html", "this file exists and is not a report, so it is not overwritten"),
        ("link.html", "this file exists and is not a report, so it is not overwritten"),
        ("closed/report.html", "is not writable"),
        ("", "expected a value that is not empty"),
    ],
)
def test_invalid_report_path_is_refused(out, expected, cli, run_study, tree, monkeypatch):
    Path("folder").mkdir()
    Path("closed").mkdir()
    Path("notes.html").write_text("<p>mine</p>")
    Path("link.html").symlink_to("nowhere")
    # Root can write to every folder, so the check itself is replaced.
    monkeypatch.setattr("tuner.session.output_paths.os.access", lambda path, mode: Path(path).name != "closed")
    before = tree(Path())
    done = cli.error("report", "--output-dir", run_study.folder, "--out", out)
    assert f"error: --out {out}".rstrip() in done
    assert expected in done
    assert tree(Path()) == before


@pytest.mark.parametrize(
    "argv", [["--output-dir", "nowhere"], ["--study", "another"], ["--storage", "mysql://x"]], ids=str
)
def test_missing_study_writes_no_report(argv, cli, run_study):
    assert cli.error("report", "--output-dir", run_study.folder, *argv).startswith("error: ")
    assert list(Path().iterdir()) == []


def test_torch_is_not_imported(run_study, working_dir):
    code = "import sys; from tuner.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    arguments = ["report", "--output-dir", str(run_study.folder)]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == "report.html\n"
    assert len(done.stderr.splitlines()) == 1
