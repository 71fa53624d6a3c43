"""The rank of a process from the variables that torchrun, srun and mpirun set."""

from __future__ import annotations

import pytest

from repro.errors import ReproError
from repro.launchers import STEP_PORTS, Launch, find_launch, first_node, launch_words, tasks_per_node

# The variables of srun's last task of five on gpu003 and gpu004.
STEP = {
    "SLURM_JOB_ID": "7712345",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_TASKS_PER_NODE": "3,2",
    "SLURM_STEP_NODELIST": "gpu[003-004]",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


def test_torchrun() -> None:
    variables = {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29400",
    }  # fmt: skip
    assert find_launch(variables) == Launch("torchrun", 5, 8, 1, 4, "10.0.0.1", 29400)
    assert find_launch({**STEP, **variables}) == find_launch(variables)  # torchrun started by srun


def test_a_launcher_that_sets_rank_and_world_size_alone_starts_ranks_on_one_machine() -> None:
    assert find_launch({"RANK": "1", "WORLD_SIZE": "2"}) == Launch("torchrun", 1, 2, 1, 2, "127.0.0.1", 29500)


def test_srun() -> None:
    launch = find_launch(STEP)
    assert launch
    assert launch == Launch("srun", 4, 5, 1, 2, "gpu003", launch.port)
    assert launch.port in STEP_PORTS
    first = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    same_step, other_step = find_launch({**STEP, **first}), find_launch({**STEP, "SLURM_STEP_ID": "3"})
    assert same_step
    assert other_step
    assert (same_step.local_world_size, same_step.port) == (3, launch.port)
    assert other_step.port != launch.port
    named = find_launch({**STEP, "MASTER_ADDR": "gpu003-ib", "MASTER_PORT": "1234"})
    assert named
    assert (named.address, named.port) == ("gpu003-ib", 1234)


def test_mpirun() -> None:
    variables = {f"OMPI_COMM_WORLD_{name}": "2" for name in ("SIZE", "LOCAL_SIZE")}
    variables |= {f"OMPI_COMM_WORLD_{name}": "1" for name in ("RANK", "LOCAL_RANK")}
    assert find_launch(variables) == Launch("mpirun", 1, 2, 1, 2, "127.0.0.1", 29500)
    with pytest.raises(ReproError, match=r"^mpirun: the address of rank 0 is unknown: set MASTER_ADDR"):
        find_launch({**variables, "OMPI_COMM_WORLD_SIZE": "4"})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {**STEP, "RANK": "0", "WORLD_SIZE": "1"},  # how a task of a job step trains alone
        {
            **STEP,
            "SLURM_STEP_NUM_TASKS": "1",
            "SLURM_PROCID": "0",
            "SLURM_STEP_TASKS_PER_NODE": "1",
            "SLURM_NODEID": "0",
        },
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"},  # a batch script itself
    ],
)
def test_a_single_process(variables: dict[str, str]) -> None:
    assert find_launch(variables) is None


def test_variables_that_are_missing_or_wrong_are_errors() -> None:
    with pytest.raises(ReproError, match=r"^the environment variable RANK is 'first', not a number: start all ranks"):
        find_launch({"RANK": "first", "WORLD_SIZE": "2"})
    without = {name: value for name, value in STEP.items() if name != "SLURM_LOCALID"}
    with pytest.raises(ReproError, match=r"^SLURM_LOCALID is not set: start all ranks"):
        find_launch(without)
    with pytest.raises(ReproError, match=r"^the tasks per node of the job step are 'many', which cannot be read"):
        find_launch({**STEP, "SLURM_STEP_TASKS_PER_NODE": "many"})
    with pytest.raises(ReproError, match=r"^SLURM_NODEID is 1, and SLURM_STEP_TASKS_PER_NODE gives the tasks of"):
        find_launch({name: value for name, value in STEP.items() if name != "SLURM_STEP_TASKS_PER_NODE"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("gpu003,gpu007", "gpu003"),
        ("gpu[003-006,010],login1", "gpu003"),
        ("gpu[7,9]", "gpu7"),
        ("rack[0-1]node[05-06]-ib,other", "rack0node05-ib"),
    ],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_tasks_per_node() -> None:
    assert tasks_per_node("8(x2),4") == [8, 8, 4]
    assert tasks_per_node("1") == [1]


def test_the_command_that_starts_as_many_ranks() -> None:
    assert launch_words("", 1, 1) == ["repro"]
    assert launch_words("torchrun", 8, 4) == [
        "torchrun", "--nnodes", "2", "--nproc-per-node", "4", "-m", "repro",
    ]  # fmt: skip
    assert launch_words("srun", 8, 4) == ["srun", "--ntasks", "8", "--ntasks-per-node", "4", "repro"]
    assert launch_words("mpirun", 2, 2) == ["mpirun", "-np", "2", "repro"]
