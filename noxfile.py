"""Checks and demonstrations: `nox -s tests`, `lint`, `types`, `demo`, `page`, `subset`, `bench`.

Every session installs the versions of constraints.txt, and environments are reused: the second run is fast.
"""

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

CHROMIUM = os.environ.get("REPRO_CHROMIUM", "/usr/bin/chromium")
# benchmarks/prepare.py is not among them: it wants a folder of photographs.
BENCHMARKS = ("step", "lrn", "training", "batches", "ten_views", "cifar", "startup", "retrieval", "growth")
CONSTRAINTS = Path(__file__).parent / "constraints.txt"


def install(session: nox.Session, *extras: str) -> None:
    """Install the project as it stands, with `extras`, in the tested versions."""
    project = f"-e.[{','.join(extras)}]" if extras else "-e."
    session.install("--quiet", "-c", str(CONSTRAINTS), project)


@nox.session(venv_backend="venv")
def tests(session: nox.Session) -> None:
    """All tests; those on real images run where REPRO_TEST_DATA names their folder."""
    install(session, "test", "dask", "parquet")
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="venv")
def lint(session: nox.Session) -> None:
    """Style, by ruff alone: nothing of the project is installed."""
    session.install("--quiet", "-c", str(CONSTRAINTS), "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(venv_backend="venv")
def types(session: nox.Session) -> None:
    """Static types."""
    install(session, "types")
    session.run("mypy")


@nox.session(venv_backend="venv")
def demo(session: nox.Session) -> None:
    """The README's first command from nothing: everything on the built-in data."""
    install(session)
    shutil.rmtree("outputs/demo", ignore_errors=True)
    session.run("repro", "demo")


@nox.session(venv_backend="venv")
def page(session: nox.Session) -> None:
    """The report in a real browser, Debian's chromium; takes the README's picture of it too."""
    install(session, "test", "page")
    if not Path(CHROMIUM).exists():
        root = () if os.geteuid() == 0 else ("sudo",)
        session.run(*root, "apt-get", "install", "--yes", "--no-install-recommends", "chromium", external=True)
    session.run("pytest", "-m", "page", *session.posargs, env={"REPRO_CHROMIUM": CHROMIUM})


@nox.session(venv_backend="none")
def subset(session: nox.Session) -> None:
    """The whole way on real images (REPRO_TEST_DATA): ten classes prepared, trained a little, evaluated, reported."""
    session.notify("tests", ["-m", "subset", "-rA", *session.posargs])  # in the environment that the tests have


@nox.session(venv_backend="venv")
def bench(session: nox.Session) -> None:
    """Every benchmark, half an hour on a quiet machine; `nox -s bench -- lrn step` for some of them."""
    install(session, "bench")
    for name in session.posargs or BENCHMARKS:
        session.run("python", f"benchmarks/{name}.py")
