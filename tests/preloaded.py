"""Imported by the server of `ForkedProgram`: torch, this project, and what Numba loads before its first function."""

import numba.core.registry

import repro.cli.commands  # noqa: F401
import repro.cli.progress  # noqa: F401
import repro.training.train  # noqa: F401

numba.core.registry.cpu_target.typing_context.refresh()
numba.core.registry.cpu_target.target_context.refresh()
