"""The package as a wheel: whole, and at home in any folder."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cnnlab.registry import CONF, PACKAGE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, "."],
        cwd=PACKAGE.parent,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_module_and_every_yaml(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in PACKAGE.rglob("*.py"):
        assert f"cnnlab/{path.relative_to(PACKAGE)}" in names
    for path in CONF.rglob("*.yaml"):
        assert f"cnnlab/conf/{path.relative_to(CONF)}" in names


def test_an_installed_wheel_works_from_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(site) in run(sys.executable, "-c", "import cnnlab; print(cnnlab.__file__)")
    console_script = str(site / "bin" / "cnnlab")
    assert "decoupled_tanh" in run(console_script, "list", "conv")
    run(console_script, "conv=decoupled_tanh", "epochs=1", "trainer.max_steps=2", "logger=none")
    result = json.loads(next((elsewhere / "outputs").rglob("result.json")).read_text())
    assert result["status"] == "done" and result["git"] is None
