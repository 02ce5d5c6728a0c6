"""What MLflow has in a local store, reached as a file and through a server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from matplotlib.image import imread
from PIL import Image
from pytorch_lightning.loggers import MLFlowLogger

from lightning_nc import EquiSeparation, NeuralCollapse
from tests import nets

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*nets.only_our_warnings)]


def answers(uri):
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as response:
            return response.read() == b"OK"
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of its own, with a SQLite store, that is gone afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, uri = tmp_path_factory.mktemp("server"), f"http://127.0.0.1:{port}"
    store = ["--backend-store-uri", "sqlite:///store.db", "--default-artifact-root", "./artifacts"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, "--port", str(port), "--workers=1"],
            cwd=folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,  # with its workers
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(uri):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(params=["a file", "a server"])
def store(request, tmp_path, monkeypatch):
    to_file = request.param == "a file"
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}" if to_file else request.getfixturevalue("server")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # which the logger sets, and is put back here
    return uri


def test_mlflow_has_every_value_and_figure_also_of_two_measurements_in_one_step(store, tmp_path):
    from mlflow.tracking import MlflowClient

    logger = MLFlowLogger(
        tracking_uri=store, artifact_location=(tmp_path / "artifacts").as_uri(), run_name="mine"
    )
    used = EquiSeparation(), NeuralCollapse()
    nets.fit(tmp_path, used, logger=logger, batch_size=30)  # one batch per epoch
    client = MlflowClient(store)
    for callback in used:
        for key in callback.history[0].values:
            logged = client.get_metric_history(logger.run_id, key)
            assert [(m.step, m.value) for m in logged] == [
                (step, pytest.approx(m.values[key], nan_ok=True))
                for step, m in zip((0, 0, 1), callback.history, strict=True)
            ]
        at_end = nets.drawings_at_end(callback)
        for tag in nets.drawings(callback) | at_end:
            files = [file.path for file in client.list_artifacts(logger.run_id, f"figures/{tag}")]
            names = ["step_00000000-2.png", "step_00000000.png", "step_00000001.png"]
            names = names[-1:] if tag in at_end else names
            assert sorted(files) == [f"figures/{tag}/{name}" for name in names]
            local = client.download_artifacts(logger.run_id, files[0], str(tmp_path))
            assert imread(local).std() > 0.01
    assert {m.value for m in client.get_metric_history(logger.run_id, "epoch")} == {0, 1}
    film = client.download_artifacts(logger.run_id, "figures/nc/train/collapse.gif", str(tmp_path))
    with Image.open(film) as opened:
        assert opened.n_frames == 3
    assert client.get_run(logger.run_id).info.status == "FINISHED"
