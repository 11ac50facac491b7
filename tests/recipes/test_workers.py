"""Several processes that train together, the data service, and the lock of a run folder."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from helpers import run_python

from keras_resnet.errors import UserError
from keras_resnet.recipes import load_config, train
from keras_resnet.recipes.runs.folder import create_run, find_run, locked
from keras_resnet.recipes.training import data_service, devices, machines, workers

# 1,257 images make 4 steps an epoch; two replicas compute on 128 images each.
TINY = {"train.epochs": 3, "train.batch_size": 256, "train.devices": "cpu"}


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _tf_config(addresses, index):
    return json.dumps(
        {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    )


def _start(arguments, env=None, prefix=()):
    return subprocess.Popen(
        [*prefix, sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )


def _start_workers(arguments, addresses, prefixes=((), ())):
    return [
        _start(arguments, {"TF_CONFIG": _tf_config(addresses, index)}, prefixes[index])
        for index in range(len(addresses))
    ]


def _loopback(count=2):
    return [f"127.0.0.1:{port}" for port in _free_ports(count)]


def _train_command(out, **settings):
    sets = [f"--set={key.replace('__', '.')}={value}" for key, value in settings.items()]
    return ["-m", "keras_resnet", "train", "debug/tiny", "--out", out, *sets]


def _ends(process, seconds=120):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


# Training together --------------------------------------------------------------------------------

_INTERRUPTED = """
import json, os, signal, sys, keras
from keras_resnet.recipes import load_config, train
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
class CtrlC(keras.callbacks.Callback):
    def on_train_batch_end(self, step, logs=None):
        if index == 1 and step == 4:
            os.kill(os.getpid(), signal.SIGINT)
try:
    train.run(load_config("debug/tiny", json.loads(sys.argv[2])), sys.argv[1], callbacks=[CtrlC()])
except KeyboardInterrupt as error:
    print("interrupted", error)
"""

_ONE_EPOCH = """
import json, sys, keras
from keras_resnet.recipes import load_config, train
class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
try:
    train.run(load_config("debug/tiny", json.loads(sys.argv[2])), sys.argv[1], callbacks=[Stop()])
except KeyboardInterrupt:
    pass
"""


def _checkpoint(run, step):
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / f"ckpt-{step}"))
    names = reader.get_variable_to_shape_map()
    return {n: reader.get_tensor(n) for n in names if not n.startswith(("_", "save_", "seconds"))}


def test_two_processes_train_as_two_devices_of_one_and_one_goes_on_alone(tmp_path):
    """Ctrl-C on worker 1 ends both; the chief left a whole folder, and one process resumes it."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    pair = _start_workers(["-c", _INTERRUPTED, together, json.dumps(TINY)], _loopback())
    run_python(_ONE_EPOCH, alone, json.dumps(TINY | {"train.devices": "cpu:2"}))
    for process in pair:
        code, output = _ends(process)
        assert code == 0, output
        assert f"interrupted {together}" in output
        assert "epoch   1/3" in output or process is pair[1]  # only the chief reports
    ours, reference = _checkpoint(together, 4), _checkpoint(alone, 4)
    assert ours.keys() == reference.keys()
    for name, expected in reference.items():
        # The same halves of the same batches; only the order of sums in the kernels is free
        # (float32, 4 steps), so single weights near zero may differ in their last digits.
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)

    train.resume(together)
    summary = find_run(together).summary()
    assert (summary["steps"], summary["workers"]) == (12, 1)
    rows = (together / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert {path.name for path in together.iterdir()} == {
        *(".lock", "best.weights.h5", "checkpoints", "config.toml", "labels.txt", "log.csv"),
        *("model.keras", "summary.json", "tensorboard", "trained_on.npz"),
    }


@pytest.mark.slow
def test_different_configs_are_refused_on_every_worker(tmp_path):
    addresses = _loopback()
    pair = [
        _start(
            _train_command(tmp_path / "run", train__seed=index),
            {"TF_CONFIG": _tf_config(addresses, index)},
        )
        for index in range(2)
    ]
    for process in pair:
        code, output = _ends(process)
        assert code == 2
        assert "The workers differ: train.seed is 0 for the chief and 1 for worker 1" in output
    assert not (tmp_path / "run").exists()


def _wait_for_line(process, text):
    lines = []
    while text not in (line := process.stdout.readline()):
        lines.append(line)
        assert line, "".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_run_on_the_other_and_both_resume_it(tmp_path, victim):
    run, addresses = tmp_path / "run", _loopback()
    pair = _start_workers(_train_command(run, train__epochs=2000), addresses)
    _wait_for_line(pair[0], "epoch   1/")
    pair[victim].kill()
    began = time.monotonic()
    code, output = _ends(pair[1 - victim])
    assert code == 2, output
    assert f"lost: worker {victim}" in output
    assert f"keras-resnet train --resume {run}" in output
    # TensorFlow's heartbeats take about 10 s, ours at most 35 s; the rest is a busy machine.
    assert time.monotonic() - began < 90

    config = run / "config.toml"
    config.write_text(config.read_text().replace("epochs = 2000", "epochs = 4"))
    again = _start_workers(["-m", "keras_resnet", "train", "--resume", run], _loopback())
    for process in again:
        code, output = _ends(process)
        assert code == 0, output
    assert find_run(run).summary()["workers"] == 2


@pytest.mark.slow
def test_two_machines_without_a_common_disk_train_and_resume(tmp_path):
    """Two network namespaces stand in for machines: other addresses, another folder."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the command ip")
    names = [f"krz{os.getpid()}{side}" for side in "ab"]
    try:
        _make_namespaces(names)
        prefixes = [("ip", "netns", "exec", name) for name in names]
        addresses = ["10.77.0.1:12345", "10.77.0.2:12345"]
        chiefs, others = tmp_path / "run0", tmp_path / "run1"

        def both(command, epochs):
            for index, arguments in enumerate((command, _train_command(others, **epochs))):
                env = {"TF_CONFIG": _tf_config(addresses, index)}
                yield _start(arguments, env, prefixes[index])

        for process in list(both(_train_command(chiefs, train__epochs=1), {"train__epochs": 1})):
            code, output = _ends(process)
            assert code == 0, output
        assert find_run(chiefs).summary()["replicas"] == 2
        (chiefs / "model.keras").unlink()
        config = chiefs / "config.toml"
        config.write_text(config.read_text().replace("epochs = 1", "epochs = 2"))
        resume = ["-m", "keras_resnet", "train", "--resume", chiefs]
        for process in list(both(resume, {"train__epochs": 2})):
            code, output = _ends(process)
            assert code == 0, output
            assert "epoch   1/" not in output
        assert find_run(chiefs).summary()["steps"] == 18
        assert not others.exists()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _make_namespaces(names):
    first, second = names
    commands = [
        *(f"ip netns add {name}" for name in names),
        f"ip link add va{os.getpid()} netns {first} type veth peer vb{os.getpid()} netns {second}",
    ]
    for name, side, address in ((first, "a", "10.77.0.1/24"), (second, "b", "10.77.0.2/24")):
        commands += [
            f"ip -n {name} addr add {address} dev v{side}{os.getpid()}",
            f"ip -n {name} link set v{side}{os.getpid()} up",
            f"ip -n {name} link set lo up",
        ]
    for command in commands:
        made = subprocess.run(command.split(), check=False, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"'{command}' is not permitted here: {made.stderr.strip()}")


# Who the workers are ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "addresses", "index"),
    [
        (_tf_config(["a:1", "b:2"], 1), ("a:1", "b:2"), 1),
        (
            '{"cluster": {"chief": ["c:1"], "worker": ["a:1", "b:2"]}, '
            '"task": {"type": "worker", "index": 1}}',
            ("c:1", "a:1", "b:2"),
            2,
        ),
    ],
)
def test_tf_config_names_the_workers_the_chief_first(monkeypatch, text, addresses, index):
    monkeypatch.setenv("TF_CONFIG", text)
    assert machines.from_environment() == machines.Cluster(addresses, index)


@pytest.mark.parametrize("text", ["", "{}", '{"cluster": {}}', _tf_config(["a:1"], 0)])
def test_a_process_on_its_own_has_no_cluster(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert machines.from_environment() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a table of jobs"),
        ('{"cluster": {"ps": ["a:1"]}}', "received 'ps'"),
        ('{"cluster": {"worker": "a:1"}}', "cluster.worker must be a list"),
        (_tf_config(["a:1", "b"], 0), "a list of HOST:PORT"),
        (_tf_config(["a:1", "b:70000"], 0), "a list of HOST:PORT"),
        (_tf_config(["a:1", "a:1"], 0), "a different address per worker"),
        (_tf_config(["a:1", "b:1"], 2), "an index into its list"),
        (_tf_config(["a:1", "b:1"], -1), "an index into its list"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "received None"),
    ],
)
def test_a_malformed_tf_config_says_what_is_wrong(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=message):
        machines.from_environment()


def test_a_slurm_job_step_is_a_cluster(monkeypatch):
    """Slurm's variables as srun sets them on 2 nodes with 3 tasks; there is no Slurm here."""
    for key, value in {
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
    }.items():
        monkeypatch.setenv(key, value)
    found = machines.from_environment()
    assert found == machines.Cluster(("node1:8888", "node1:8889", "node2:8888"), 2)


@pytest.mark.parametrize(
    ("where", "batch", "message"),
    [
        ("cpu", 33, "a multiple of 2, the number of devices; received 33"),
        ("cpu", 1, "a multiple of 2, the number of devices; received 1"),
        ("cpu:2", 32, "only for a single process"),
    ],
)
def test_what_several_machines_cannot_do_is_refused(monkeypatch, where, batch, message):
    monkeypatch.setenv("TF_CONFIG", _tf_config(["a:1", "b:1"], 0))
    with pytest.raises(UserError, match=message):
        devices.strategy(where, batch)


def test_a_worker_that_does_not_come_is_named(capsys):
    own, other = _loopback()
    with pytest.raises(UserError, match=rf"worker 1 at {other} within 1 s"):
        machines.meet(machines.Cluster((own, other), 0), 0.6)
    assert f"waiting for worker 1 at {other}" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        own = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"Cannot listen at port .* of {own}"):
            machines.meet(machines.Cluster((own, "127.0.0.1:1"), 0), 1)


@pytest.mark.slow
def test_a_lost_peer_ends_a_process_that_waits():
    """TensorFlow may wait forever in C++; the watch ends the process all the same."""
    code = """
import time
from keras_resnet.recipes.training import machines
machines.PATIENCE_SECONDS = machines._PROBE_SECONDS = 0.2
with machines.watching({"127.0.0.1:1": "worker 1 at 127.0.0.1:1"}, "Start it again."):
    time.sleep(60)
"""
    ended = run_python(code, check=False)
    assert ended.returncode == 2
    assert "error: worker 1 at 127.0.0.1:1 was lost: no answer for 0 s. Start it" in ended.stderr


def test_alone_what_is_collective_is_the_identity():
    strategy = tf.distribute.get_strategy()
    votes = workers.Votes(strategy)
    assert workers.share(strategy, b"x") == b"x"
    assert workers.gather(strategy, b"x") == [b"x"]
    assert [votes.any(True), votes.any(False)] == [True, False]
    assert [votes.any_in_a_while(True), votes.any_in_a_while(False)] == [True, False]


# The lock -----------------------------------------------------------------------------------------


def test_a_run_folder_in_use_is_refused_until_its_process_ends(tmp_path):
    run = create_run(tmp_path / "run", load_config("debug/tiny"))
    code = """
import sys, time
from pathlib import Path
from keras_resnet.recipes.runs.folder import Run, locked
with locked(Run(Path(sys.argv[1]))):
    print("it is held", flush=True)
    time.sleep(60)
"""
    holder = _start(["-c", code, run.path])
    try:
        _wait_for_line(holder, "it is held")  # words that no traceback has
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on "):
            train.resume(run.path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with locked(run), pytest.raises(UserError, match=f"process {os.getpid()} "):  # noqa: SIM117
        with locked(run):
            pass


# The data service ---------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["localhost:5050", "grpc://localhost", "grpc://h:x"])
def test_a_bad_service_address_is_refused(service):
    with pytest.raises(UserError, match="must be grpc://HOST:PORT; received"):
        data_service.require(service, 1)


def test_a_service_that_does_not_answer_is_named():
    (address,) = _loopback(1)
    with pytest.raises(UserError, match=f"the data service grpc://{address} within 1 s"):
        data_service.require(f"grpc://{address}", 0.6)


def _start_service():
    port = _free_ports(1)[0]
    service = _start(
        ["-m", "keras_resnet", "data-service", "--host", "127.0.0.1", "--port", port, "--json"],
    )
    _wait_for_line(service, f"serving batches at grpc://127.0.0.1:{port}")
    _wait_for_line(service, f'"address": "grpc://127.0.0.1:{port}"')
    return service, f"grpc://127.0.0.1:{port}"


@pytest.mark.slow
def test_a_run_on_served_batches_is_the_run_on_local_ones_also_after_a_resume(tmp_path):
    settings = {"augment__crop": "shift", "train__epochs": 2, "train__batch_size": 256}
    service, address = _start_service()
    try:
        local, served = tmp_path / "local", tmp_path / "served"
        for out, extra in ((local, []), (served, ["--data-service", address])):
            code, output = _ends(_start([*_train_command(out, **settings), *extra]))
            assert code == 0, output
        # Goes back to the end of epoch 1 and does epoch 2 once more.
        for name in ("model.keras", "summary.json"):
            (served / name).unlink()
        state = served / "checkpoints" / "checkpoint"
        state.write_text(  # TensorFlow's manager overlooks a checkpoint without its time
            'model_checkpoint_path: "ckpt-4"\nall_model_checkpoint_paths: "ckpt-4"\n'
            "all_model_checkpoint_timestamps: 1.0\n"
        )
        code, output = _ends(_start(["-m", "keras_resnet", "train", "--resume", served]))
        assert code == 0, output
    finally:
        service.send_signal(signal.SIGINT)
        code, output = _ends(service)
    assert code == 0, output
    expected, ours = _checkpoint(local, 8), _checkpoint(served, 8)
    for name, value in expected.items():  # the same batches, one device: bit for bit
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.mark.slow
def test_a_service_that_dies_ends_the_run(tmp_path):
    service, address = _start_service()
    command = _train_command(tmp_path / "run", train__epochs=2000)
    process = _start([*command, "--data-service", address])
    _wait_for_line(process, "epoch   1/")
    service.kill()
    code, output = _ends(process)
    assert code == 2, output
    assert f"error: the data service {address} was lost" in output
    assert f"keras-resnet train --resume {tmp_path / 'run'}" in output
