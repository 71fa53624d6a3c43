"""Sessions: `nox -s tests`, `lint`, `types`, `demo`, `page`, `subset`, `bench`, `reference`.

Each session installs the versions of constraints.txt. Environments are reused, so a second run starts quickly.
"""

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

CHROMIUM = os.environ.get("REPRO_CHROMIUM", "/usr/bin/chromium")
# Without benchmarks/prepare.py, which needs a folder of photographs.
BENCHMARKS = ("step", "lrn", "training", "batches", "ten_views", "cifar", "startup", "retrieval", "growth")
CONSTRAINTS = Path(__file__).parent / "constraints.txt"


def install(session: nox.Session, *extras: str) -> None:
    """Install this checkout in editable mode with `extras`, in the tested versions."""
    project = f"-e.[{','.join(extras)}]" if extras else "-e."
    session.install("--quiet", "-c", str(CONSTRAINTS), project)


@nox.session(venv_backend="venv")
def tests(session: nox.Session) -> None:
    """Run the tests; those on real images need REPRO_TEST_DATA to name their folder."""
    install(session, "test", "dask", "parquet", "export")
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="venv")
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff; the project itself is not installed."""
    session.install("--quiet", "-c", str(CONSTRAINTS), "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(venv_backend="venv")
def types(session: nox.Session) -> None:
    """Check types with mypy."""
    install(session, "types")
    session.run("mypy")


@nox.session(venv_backend="venv")
def demo(session: nox.Session) -> None:
    """Run `repro demo`, the README's first command, from scratch."""
    install(session)
    shutil.rmtree("outputs/demo", ignore_errors=True)
    session.run("repro", "demo")


@nox.session(venv_backend="venv")
def page(session: nox.Session) -> None:
    """Test the report in a browser, Debian's chromium; this also takes the README's screenshot."""
    install(session, "test", "page")
    if not Path(CHROMIUM).exists():
        root = () if os.geteuid() == 0 else ("sudo",)
        session.run(*root, "apt-get", "install", "--yes", "--no-install-recommends", "chromium", external=True)
    session.run("pytest", "-m", "page", *session.posargs, env={"REPRO_CHROMIUM": CHROMIUM})


@nox.session(venv_backend="none")
def subset(session: nox.Session) -> None:
    """Run the pipeline on ten classes of real images (REPRO_TEST_DATA), with a short training."""
    session.notify("tests", ["-m", "subset", "-rA", *session.posargs])  # in the environment of the tests


@nox.session(venv_backend="venv")
def bench(session: nox.Session) -> None:
    """Run every benchmark, half an hour on an idle machine; `nox -s bench -- lrn step` runs some of them."""
    install(session, "bench")
    for name in session.posargs or BENCHMARKS:
        session.run("python", f"benchmarks/{name}.py")


@nox.session(venv_backend="venv")
def reference(session: nox.Session) -> None:
    """Generate docs/cli.md and the README's table of commands from the commands."""
    install(session)
    session.run("python", "-m", "repro.cli.reference")
