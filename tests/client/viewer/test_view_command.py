"""The command: what it refuses, and that it serves on loopback until it is told to stop."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", "localhost"])  # noqa: S104
def test_another_host_than_loopback_is_refused(run, cases, host):
    code, _, stderr = run("view", cases.data, "--host", host)
    assert code == 2
    assert f"--host {host}: expected 127.0.0.1 or ::1, because the pages show patients" in stderr


def test_a_run_directory_is_refused(run, tmp_path):
    (tmp_path / "events.jsonl").touch()
    code, _, stderr = run("view", tmp_path)
    assert code == 2
    assert "images never leave their site" in stderr


def test_a_port_in_use_is_refused_in_one_line(run, cases):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, stderr = run("view", cases.data, "--port", port)
    assert code == 2
    assert f"--port {port}: expected a free port on 127.0.0.1" in stderr


def test_a_folder_that_does_not_exist_is_refused(run, tmp_path):
    code, _, stderr = run("view", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in stderr
    assert "Traceback" not in stderr


def test_it_prints_its_address_answers_there_and_ends_with_ctrl_c(cases):
    command = [
        sys.executable,
        "-m",
        "consilium",
        "view",
        cases.data,
        "--prediction",
        cases.predictions,
    ]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as viewer:
        try:
            address = viewer.stdout.readline().strip()
            assert httpx.get(address).status_code == 200
            token = address.rstrip("/").rsplit("/", 1)[1]
            assert len(token) == 32
            assert httpx.get(address.replace(token, "0" * 32)).status_code == 404
            viewer.send_signal(signal.SIGINT)
            _, stderr = viewer.communicate(timeout=30)
        finally:
            viewer.kill()
    assert viewer.returncode == 0
    assert "Traceback" not in stderr
    assert token not in stderr  # a log of addresses would hold the secret
    assert "6 cases" in stderr
