"""The rank of this process, as torchrun, srun, mpirun or any launcher like them set it in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from repro.errors import ReproError

DEFAULT_PORT = 29500  # torch's own default
STEP_PORTS = range(15_000, 31_000)  # of Slurm's job steps: below the ports that Linux assigns by itself


@dataclass(frozen=True)
class Launch:
    """One of the processes that a launcher started.

    Attributes:
        launcher: torchrun, srun or mpirun; torchrun also stands for others that set RANK and WORLD_SIZE.
        rank: number of this process, from 0.
        world_size: number of processes.
        local_rank: number of this process among those on its machine.
        local_world_size: number of processes on this machine.
        address: host name or address of rank 0.
        port: port on which rank 0 listens.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int


def launch_words(launcher: str, world_size: int, local_world_size: int) -> list[str]:
    """Return the words that start this program on as many processes as now; ["repro"] for a single one."""
    if world_size == 1:
        return ["repro"]
    if launcher == "srun":
        return ["srun", "--ntasks", str(world_size), "--ntasks-per-node", str(local_world_size), "repro"]
    if launcher == "mpirun":
        return ["mpirun", "-np", str(world_size), "repro"]
    machines = world_size // local_world_size
    nodes = ["--nnodes", str(machines)] if machines > 1 else []
    return ["torchrun", *nodes, "--nproc-per-node", str(local_world_size), "-m", "repro"]


def find_launch(variables: Mapping[str, str] = os.environ) -> Launch | None:
    """Return how this process was launched; None if it is the only one.

    RANK and WORLD_SIZE come first, then the variables of a Slurm job step, then Open MPI's. MASTER_ADDR and
    MASTER_PORT, if set, are the address and the port of rank 0. Raises ReproError for a variable that is missing or is
    not a number, and if the address of rank 0 is unknown.
    """
    launch = None
    if {"RANK", "WORLD_SIZE"} <= variables.keys():
        launch = _from_torchrun(variables)
    elif {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= variables.keys():  # set by srun, not in a batch script itself
        launch = _from_srun(variables)
    elif {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"} <= variables.keys():
        launch = _from_mpirun(variables)
    return launch if launch and launch.world_size > 1 else None


def is_launched() -> bool:
    """Return whether this process is one of several ranks."""
    try:
        return find_launch() is not None
    except ReproError:
        return False


def _from_torchrun(variables: Mapping[str, str]) -> Launch:
    rank, world_size = (_number(variables, name) for name in ("RANK", "WORLD_SIZE"))
    # Without these two all processes are on one machine.
    local_rank = _number(variables, "LOCAL_RANK", rank)
    local_world_size = _number(variables, "LOCAL_WORLD_SIZE", world_size)
    return Launch(
        "torchrun", rank, world_size, local_rank, local_world_size,
        _address(variables, local_world_size == world_size, "RANK and WORLD_SIZE"),
        _number(variables, "MASTER_PORT", DEFAULT_PORT),
    )  # fmt: skip


def _from_srun(variables: Mapping[str, str]) -> Launch:
    world_size, node = _number(variables, "SLURM_STEP_NUM_TASKS"), _number(variables, "SLURM_NODEID", 0)
    counts = variables.get("SLURM_STEP_TASKS_PER_NODE") or variables.get("SLURM_TASKS_PER_NODE") or str(world_size)
    tasks = tasks_per_node(counts)
    if node >= len(tasks):
        raise ReproError(
            f"SLURM_NODEID is {node}, and SLURM_STEP_TASKS_PER_NODE gives the tasks of nodes below {len(tasks)}: pass "
            "all variables of Slurm on, or use torchrun"
        )
    # Every process of a job step finds the same port, and steps that run at the same time find different ones.
    step = 10 * _number(variables, "SLURM_JOB_ID", 0) + _number(variables, "SLURM_STEP_ID", 0)
    nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    return Launch(
        "srun",
        _number(variables, "SLURM_PROCID"),
        world_size,
        _number(variables, "SLURM_LOCALID"),
        tasks[node],
        variables.get("MASTER_ADDR") or first_node(nodes),
        _number(variables, "MASTER_PORT", STEP_PORTS[step % len(STEP_PORTS)]),
    )


def _from_mpirun(variables: Mapping[str, str]) -> Launch:
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    rank, world_size, local_rank, local_world_size = (_number(variables, f"OMPI_COMM_WORLD_{name}") for name in names)
    address = _address(variables, local_world_size == world_size, "mpirun")
    port = _number(variables, "MASTER_PORT", DEFAULT_PORT)
    return Launch("mpirun", rank, world_size, local_rank, local_world_size, address, port)


def _address(variables: Mapping[str, str], one_machine: bool, launcher: str) -> str:
    address = variables.get("MASTER_ADDR") or ("127.0.0.1" if one_machine else "")
    if not address:
        raise ReproError(
            f"{launcher}: the address of rank 0 is unknown: set MASTER_ADDR to the name of its machine, for all ranks"
        )
    return address


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = variables.get(name, "")
    if not value and default is not None:
        return default
    if not value.isdecimal():
        problem = f"the environment variable {name} is '{value}', not a number" if value else f"{name} is not set"
        raise ReproError(f"{problem}: start all ranks with torchrun, srun or mpirun, or unset RANK and WORLD_SIZE")
    return int(value)


def first_node(nodes: str) -> str:
    """Return the first host name of Slurm's list of nodes: gpu003 for `gpu[003-006,010],login1`."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0] if first else nodes)


def tasks_per_node(counts: str) -> list[int]:
    """Return the number of tasks on each node from Slurm's short form: 8, 8, 4 for `8(x2),4`."""
    expanded: list[int] = []
    for part in counts.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if not found:
            raise ReproError(f"the tasks per node of the job step are '{counts}', which cannot be read: use torchrun")
        expanded += [int(found[1])] * int(found[2] or 1)
    return expanded
