"""Messages on the terminal: levels, processes, other libraries, progress bars."""

import logging
import sys

import jax
import pytest
from click.testing import CliRunner
from tqdm import tqdm

from satmip_jax.cli import cli
from satmip_jax.runtime import console

log = logging.getLogger("satmip_jax.training.loop")


@pytest.fixture(autouse=True)
def _restore_logging():
    """Undo what `setup_logging` does to this process."""
    root, levels = logging.getLogger(), {}
    handlers = root.handlers[:]
    for name in ("satmip_jax", "absl"):
        levels[name] = logging.getLogger(name).level
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def shown(capsys):
    out, err = capsys.readouterr()
    assert out == ""  # stdout is for results
    return err


def test_an_information_is_its_text_and_a_warning_says_so(capsys):
    console.setup_logging("info")
    log.debug("a detail")
    log.info("4 steps of 16 images")
    log.warning("%s could not be deleted", "checkpoint 2")
    assert shown(capsys) == "4 steps of 16 images\nwarning: checkpoint 2 could not be deleted\n"


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 3), ("warning", 1), ("error", 0)])
def test_the_level_decides_and_can_be_set_again(capsys, level, lines):
    console.setup_logging("info")
    console.setup_logging(level)
    log.debug("one")
    log.info("two")
    log.warning("three")
    assert len(shown(capsys).splitlines()) == lines


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match=r"'loud': use one of debug, info"):
        console.setup_logging("loud")


def test_other_libraries_warn_by_their_name_and_their_routine_is_left_out(capsys):
    console.setup_logging("info")
    jax_log, absl = logging.getLogger("jax._src.xla_bridge"), logging.getLogger("absl")
    jax_log.warning("a GPU may be present")
    jax_log.info("backends: cpu")
    absl.info("a save has begun")
    absl.warning("Given directory is read only=/runs/a")
    absl.error("metadata of item %r is missing", "state")
    assert shown(capsys) == (
        "warning: jax._src.xla_bridge: a GPU may be present\n"
        "error: absl: metadata of item 'state' is missing\n"
    )


def test_debug_shows_the_routine_of_other_libraries_too(capsys):
    console.setup_logging("debug")
    logging.getLogger("absl").warning("Given directory is read only=/runs/a")
    assert "read only" in shown(capsys)


def test_other_processes_show_only_what_concerns_them(capsys, monkeypatch):
    console.setup_logging("info")
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 3)
    log.info("4 steps of 16 images")
    log.error("the last checkpoint could not be written")
    log.warning("record 7 cannot be read", extra=console.ALL_PROCESSES)
    logging.getLogger("jax").warning("of every process alike")
    logging.getLogger("jax").error("this host's device is lost")
    assert shown(capsys) == (
        "process 3: warning: record 7 cannot be read\n"
        "process 3: error: jax: this host's device is lost\n"
    )


def test_a_message_before_the_processes_have_joined_does_not_start_the_devices(monkeypatch):
    console.setup_logging("info")
    monkeypatch.setattr(jax, "process_index", lambda: pytest.fail("it starts the devices"))
    assert console.process_index() == 0


def test_a_message_takes_a_line_of_its_own_above_a_progress_bar(capsys):
    console.setup_logging("info")
    with tqdm(total=2, desc="training", file=sys.stderr, mininterval=0) as bar:
        bar.update()
        log.info("step 1: knn_image 0.5")
    lines = shown(capsys).replace("\r", "\n").splitlines()
    assert "step 1: knn_image 0.5" in [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("arguments", "environment", "level"),
    [
        ([], {}, logging.INFO),
        ([], {"SATMIP_LOG": "debug"}, logging.DEBUG),
        (["--log-level", "ERROR"], {"SATMIP_LOG": "debug"}, logging.ERROR),
    ],
)
def test_the_command_installs_the_handler(arguments, environment, level, tmp_path):
    command = [*arguments, "report", str(tmp_path / "absent")]
    CliRunner().invoke(cli, command, env={"SATMIP_LOG": None, **environment})
    assert logging.getLogger("satmip_jax").level == level
    assert sum(isinstance(h, console.ConsoleHandler) for h in logging.getLogger().handlers) == 1
