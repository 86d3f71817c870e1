"""The recipes for batch systems, which were not run on one: what they would start."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"
KERAS_UNET = 'printf "%s\\n" "$TF_CONFIG" "$@"'
"""A stand-in that tells what it was asked to do."""


def commands_on(path, **tools):
    """Puts shell scripts of some names first where commands are looked for."""
    for name, text in tools.items():
        tool = path / name.replace("_", "-")
        tool.write_text(f"#!/bin/bash\n{text}\n")
        tool.chmod(0o755)
    return os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}


def told(command, environment):
    """Runs a recipe: the TF_CONFIG and the arguments that keras-unet gets."""
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    config, *arguments = result.stdout.splitlines()
    return json.loads(config), arguments


@pytest.mark.parametrize("name", ["slurm.sh", "kubernetes.yaml"])
def test_a_recipe_says_at_its_head_that_it_was_not_tested(name):
    assert "NOT TESTED" in "".join((EXAMPLES / name).read_text().splitlines()[:3])


def test_the_slurm_script_is_valid():
    subprocess.run([shutil.which("bash"), "-n", EXAMPLES / "slurm.sh"], check=True)


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_slurm_script_starts_a_worker_with_its_options(tmp_path, interrupted):
    run = tmp_path / "run"
    run.mkdir()
    if interrupted:
        (run / "checkpoint.npz").touch()
    here = commands_on(
        tmp_path,
        scontrol="echo node1; echo node2",
        srun='shift; SLURM_PROCID=1 exec "$@"',
        keras_unet=KERAS_UNET,
    )
    here |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
    config, arguments = told(
        ["bash", EXAMPLES / "slurm.sh", "a b", run, "--validation", "c 1"], here
    )
    assert config == {
        "cluster": {"worker": ["node1:20007", "node2:20007"]},
        "task": {"type": "worker", "index": 1},
    }
    head = ["train", "a b", "--run", str(run), "--distribute", "multiworker"]
    assert arguments == head + (["--resume"] if interrupted else ["--validation", "c 1"])


def test_the_kubernetes_job_starts_workers_that_know_each_other(tmp_path):
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    here = commands_on(tmp_path, keras_unet=KERAS_UNET) | {"JOB_COMPLETION_INDEX": "1"}
    config, arguments = told([*container["command"], *container["args"]], here)
    name, domain = job["metadata"]["name"], service["metadata"]["name"]
    pods = [f"{name}-{number}.{domain}:2222" for number in range(job["spec"]["completions"])]
    assert config == {
        "cluster": {"worker": pods},
        "task": {"type": "worker", "index": 1},
    }
    assert pod["subdomain"] == domain
    assert arguments[-2:] == ["--distribute", "multiworker"]
