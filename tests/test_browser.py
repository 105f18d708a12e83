"""A study that is being trained, looked at with a real browser; and its report, opened from disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import yaml
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from studies import load_study
from tuner.data.generation import generate_dataset

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="no browser here; on Debian: apt-get install chromium chromium-driver"
    ),
]

TINY = {
    "decoder": "attention",
    "stem_channels": [4, 8],
    "stage_channels": [8],
    "blocks_per_stage": 0,
    "width": 16,
    "context_layers": 0,
}


@dataclass(frozen=True)
class Browser:
    """A real browser, and what happens in it."""

    driver: webdriver.Chrome

    def open(self, address: str) -> None:
        """Go to a page; what was asked for, or complained of, before is forgotten."""
        self.driver.get("about:blank")
        self.requested(), self.complaints()
        self.driver.get(address)

    def text(self) -> str:
        """What the page says."""
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def wait_for(self, look: Callable[[], Any]) -> Any:
        """Look until there is something."""
        waiting = WebDriverWait(self.driver, PATIENCE_S, 0.2, [StaleElementReferenceException])
        return waiting.until(lambda driver: look())

    def picture_widths(self) -> list[int]:
        """Width of each picture in pixels of its own; 0 if it has not been loaded."""
        script = "return [...document.querySelectorAll('img')].map(picture => picture.naturalWidth)"
        return list(self.driver.execute_script(script))

    def requested(self) -> set[str]:
        """Where what was asked for since the last call is: schemes and machines."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        return {re.sub(r"^([a-z]+:(?://[^/]*)?).*", r"\1", call["request"]["url"], flags=re.DOTALL) for call in sent}

    def complaints(self) -> list[str]:
        """What the browser complained of since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    # Without a sandbox, since it may be root who runs the tests.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study whose first trial has ended; its second one is in training and has no end."""
    folder = tmp_path_factory.mktemp("watched")
    generate_dataset(folder / "generated_data", samples=40, test_samples=10)
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": {"tiny": TINY}}))
    experiments = {name: experiment(epochs) for name, epochs in (("ខ្មែរ", 2), ("endless", 100_000))}
    content = yaml.safe_dump({"experiments": experiments}, allow_unicode=True, sort_keys=False)
    (folder / "experiments.yaml").write_text(content, encoding="utf-8")
    log = folder / "training.log"
    with (
        log.open("w") as errors,
        in_background(folder, "run", "--config", "experiments.yaml", stderr=errors) as training,
    ):
        while " 1/100000 " not in log.read_text(encoding="utf-8"):
            assert training.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield folder
        assert training.poll() is None, log.read_text(encoding="utf-8")


def experiment(epochs: int) -> dict[str, Any]:
    return {
        "model": {"name": "tiny", "config_path": "models.yaml"},
        "data": {"metadata_path": "generated_data/metadata.yaml"},
        "training": {"device": "cpu", "batch_size": 1, "num_epochs": epochs, "use_tensorboard": False},
        "early_stopping": {"patience": 100_000},
    }


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[str]:
    """The address of the study's page."""
    with in_background(folder, "dashboard", "--port", "0") as serving:
        assert serving.stdout is not None
        yield serving.stdout.readline().split()[0]


@contextmanager
def in_background(
    folder: Path, *words: str, stderr: int | IO[str] = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run a command until the ``with`` statement ends."""
    command = [sys.executable, "-m", "tuner", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_running_trial_is_seen_to_get_on(browser: Browser, page: str) -> None:
    browser.open(f"{page}/trials?numbers=1")

    def last_epoch() -> int:
        """The last one that the page tells a value of."""
        told = re.search(r"Intermediate Values\n((?:\d+ [\d.e-]+\n)+)", browser.text())
        return int(told[1].splitlines()[-1].split()[0]) if told else 0

    first = browser.wait_for(last_epoch)
    assert "Running" in browser.text()
    assert browser.wait_for(lambda: last_epoch() > first)  # with nobody touching the page
    assert browser.complaints() == []
    assert browser.requested() <= {page.partition("/dashboard")[0], "data:", "blob:"}


def test_the_study_s_page_draws_its_plots(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.wait_for(lambda: len(browser.driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .main-svg")) > 3)
    text = browser.text()
    assert "khmer-ocr" in text
    assert "val_char_accuracy" in text
    assert browser.complaints() == []
    assert browser.requested() <= {page.partition("/dashboard")[0], "data:", "blob:"}


def test_a_finished_trial_shows_its_note_and_its_pictures(browser: Browser, page: str) -> None:
    browser.open(f"{page}/trials")
    browser.wait_for(lambda: browser.driver.find_elements(By.XPATH, "//*[text()='Trial 0 ខ្មែរ']"))[0].click()
    browser.wait_for(lambda: "ខ្មែរ: max epochs" in browser.text())
    note = browser.text().partition("Note")[2]
    for words in ("best character accuracy", "seconds per epoch", "2 of at most 2", "tensorboard --logdir"):
        assert words in note
    assert browser.wait_for(lambda: len(widths := browser.picture_widths()) == 3 and all(widths))
    for name in ("learning_curves.png", "confusion_matrix.png", "worst_readings.png", "training_config.yaml"):
        assert name in browser.text()
    assert browser.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.complaints() == []
    assert browser.requested() <= {page.partition("/dashboard")[0], "data:", "blob:"}


def test_what_is_refused_is_not_offered(browser: Browser, page: str) -> None:
    def labels() -> list[str]:
        script = """return [...document.querySelectorAll("button, .MuiCard-root")]
            .filter(shown => shown.checkVisibility()).map(shown => shown.ariaLabel ?? shown.innerText)"""
        return list(browser.driver.execute_script(script))

    def icons() -> set[str]:
        script = """return [...document.querySelectorAll("svg")]
            .filter(shown => shown.checkVisibility()).map(shown => shown.dataset.testid)"""
        return set(browser.driver.execute_script(script))

    browser.open(f"{page}/trials?numbers=1")
    browser.wait_for(lambda: "endless: running" in browser.text())
    assert "Filter" in labels()
    assert "Trial 1 endless" in browser.text()
    assert "Fail Trial" not in browser.driver.execute_script("return document.body.innerText")
    assert not icons() & {"EditIcon", "UploadFileIcon", "DeleteIcon", "StopCircleIcon"}
    browser.open(page.partition("/studies")[0])
    browser.wait_for(lambda: "khmer-ocr" in browser.text())
    assert "RELOAD" in labels()
    assert not {"CREATE", "rename study", "delete study"} & set(labels())


def test_the_report_opens_from_disk(browser: Browser, folder: Path) -> None:
    with in_background(folder, "report", "--out", "report.html") as reporting:
        output, errors = reporting.communicate(timeout=120)
        assert reporting.returncode == 0, output + errors
    browser.open((folder / "report.html").as_uri())
    browser.wait_for(lambda: browser.driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .main-svg"))
    text = browser.text()
    assert "ខ្មែរ" in text
    assert "endless" in text
    assert browser.wait_for(lambda: (widths := browser.picture_widths()) and all(widths))
    assert browser.complaints() == []
    assert browser.requested() <= {"file://", "data:", "blob:"}


def test_being_looked_at_left_the_study_as_it_is(folder: Path) -> None:
    trials = load_study(folder / "training_output")[0].get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "RUNNING"]
    steps = list(trials[1].intermediate_values)
    assert steps == list(range(1, len(steps) + 1))
