"""The dashboard of a running study and a report file, in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from studies import load_study
from tuner.data.generation.dataset import generate_dataset

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason="chromium or chromedriver is missing; on Debian: apt-get install chromium chromium-driver",
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
    """A real browser, its requests and its log."""

    driver: webdriver.Chrome

    def open(self, address):
        """Open a page and discard earlier requests and log entries."""
        self.driver.get("about:blank")
        self.requested_origins(), self.log_messages()
        self.driver.get(address)

    def text(self):
        """Return the text of the page."""
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def wait_for(self, condition):
        """Wait until a condition returns a true value; return the value."""
        waiting = WebDriverWait(self.driver, PATIENCE_S, 0.2, [StaleElementReferenceException])
        return waiting.until(lambda driver: condition())

    def image_widths(self):
        """Return the natural width of each image in pixels; 0 for an image that is not loaded."""
        script = "return [...document.querySelectorAll('img')].map(image => image.naturalWidth)"
        return list(self.driver.execute_script(script))

    def requested_origins(self):
        """Return the origins (scheme and host) requested since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        return {re.sub(r"^([a-z]+:(?://[^/]*)?).*", r"\1", call["request"]["url"], flags=re.DOTALL) for call in sent}

    def log_messages(self):
        """Return the warnings and errors of the browser since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    # Chromium refuses to run as root with its sandbox.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a study whose first trial has completed; the second trial trains until the tests end."""
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


def experiment(epochs):
    return {
        "model": {"name": "tiny", "config_path": "models.yaml"},
        "data": {"metadata_path": "generated_data/metadata.yaml"},
        "training": {"device": "cpu", "batch_size": 1, "num_epochs": epochs, "use_tensorboard": False},
        "early_stopping": {"patience": 100_000},
    }


@pytest.fixture(scope="module")
def page(folder):
    """Serve the dashboard; return the address of the study's page."""
    with in_background(folder, "dashboard", "--port", "0") as serving:
        assert serving.stdout is not None
        yield serving.stdout.readline().split()[0]


@contextmanager
def in_background(folder, *arguments, stderr=subprocess.PIPE):
    """Run a command until the ``with`` statement ends."""
    command = [sys.executable, "-m", "tuner", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_page_of_a_running_trial_updates_itself(browser, page):
    browser.open(f"{page}/trials?numbers=1")

    def last_epoch():
        """Return the last epoch with a value on the page."""
        found = re.search(r"Intermediate Values\n((?:\d+ [\d.e-]+\n)+)", browser.text())
        return int(found[1].splitlines()[-1].split()[0]) if found else 0

    first = browser.wait_for(last_epoch)
    assert "Running" in browser.text()
    assert browser.wait_for(lambda: last_epoch() > first)  # without a reload
    assert browser.log_messages() == []
    assert browser.requested_origins() <= {page.partition("/dashboard")[0], "data:", "blob:"}


def test_study_page_shows_its_plots(browser, page):
    browser.open(page)
    browser.wait_for(lambda: len(browser.driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .main-svg")) > 3)
    text = browser.text()
    assert "khmer-ocr" in text
    assert "val_char_accuracy" in text
    assert browser.log_messages() == []
    assert browser.requested_origins() <= {page.partition("/dashboard")[0], "data:", "blob:"}


def test_page_of_a_finished_trial_shows_its_note_and_plots(browser, page):
    browser.open(f"{page}/trials")
    browser.wait_for(lambda: browser.driver.find_elements(By.XPATH, "//*[text()='Trial 0 ខ្មែរ']"))[0].click()
    browser.wait_for(lambda: "ខ្មែរ: max epochs" in browser.text())
    note = browser.text().partition("Note")[2]
    for text in ("best character accuracy", "seconds per epoch", "2 of at most 2", "tensorboard --logdir"):
        assert text in note
    assert browser.wait_for(lambda: len(widths := browser.image_widths()) == 3 and all(widths))
    for name in ("learning_curves.png", "confusion_matrix.png", "worst_readings.png", "training_config.yaml"):
        assert name in browser.text()
    assert browser.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.log_messages() == []
    assert browser.requested_origins() <= {page.partition("/dashboard")[0], "data:", "blob:"}


def test_write_controls_are_hidden(browser, page):
    def labels():
        script = """return [...document.querySelectorAll("button, .MuiCard-root")]
            .filter(shown => shown.checkVisibility()).map(shown => shown.ariaLabel ?? shown.innerText)"""
        return list(browser.driver.execute_script(script))

    def icons():
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


def test_report_file_opens_in_a_browser(browser, folder):
    with in_background(folder, "report", "--out", "report.html") as reporting:
        output, errors = reporting.communicate(timeout=120)
        assert reporting.returncode == 0, output + errors
    browser.open((folder / "report.html").as_uri())
    browser.wait_for(lambda: browser.driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .main-svg"))
    text = browser.text()
    assert "ខ្មែរ" in text
    assert "endless" in text
    assert browser.wait_for(lambda: (widths := browser.image_widths()) and all(widths))
    assert browser.log_messages() == []
    assert browser.requested_origins() <= {"file://", "data:", "blob:"}


def test_dashboard_leaves_the_study_unchanged(folder):
    trials = load_study(folder / "training_output")[0].get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "RUNNING"]
    steps = list(trials[1].intermediate_values)
    assert steps == list(range(1, len(steps) + 1))
