"""The first screen of the report: the claims that matter, and in words what was reproduced and what is lacking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro.formatting import number
from repro.paper.experiments import ALL, PARTS, Experiment
from repro.paper.sections import SECTIONS
from repro.paper.targets import AGREES, DISAGREES, MATCH, MISMATCH, MISSING, NOT_COMPARABLE, UNDECIDED
from repro.report.claims import Claim
from repro.report.commands import experiment_command, experiment_of

Layout = tuple[tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]], ...]

LAYOUT: Layout = (
    (
        "Table 1", "ILSVRC-2010, test: top-1 / top-5 error, %",
        (("CNN", ("table1-cnn-top1", "table1-cnn-top5")),),
    ),
    (
        "Table 2", "ILSVRC-2012, validation: top-1 / top-5 error, %",
        (
            ("1 CNN", ("table2-1cnn-top1", "table2-1cnn-top5")),
            ("5 CNNs, averaged", ("table2-5cnns-top1", "table2-5cnns-top5")),
            ("1 CNN, pre-trained", ("table2-1cnn-pretrained-top1", "table2-1cnn-pretrained-top5")),
            ("7 CNNs, averaged", ("table2-7cnns-top1", "table2-7cnns-top5")),
        ),
    ),
    (
        "Tables 1 and 2", "Difference of errors on the same images: top-1 / top-5, points",
        (
            ("CNN minus SIFT + FVs", ("contest-sift-fv-top1", "contest-sift-fv-top5")),
            ("CNN minus sparse coding", ("contest-sparse-coding-top1", "contest-sparse-coding-top5")),
        ),
    ),
    (
        "Figure 1", "CIFAR-10: epochs to 25% training error",
        (("ReLU: times as fast as tanh", ("figure1-relu-speed",)),),
    ),
    (
        "Ingredients", "Rise in top-1 / top-5 error without each, points",
        (
            ("Two GPUs", ("two-gpus-top1", "two-gpus-top5")),
            ("Response normalisation", ("lrn-top1", "lrn-top5")),
            ("Overlapping pooling", ("overlap-top1", "overlap-top5")),
            ("Augmentation: colour", ("colour-top1",)),
            ("Augmentation: crops, flips (overfitting)", ("crops-overfit",)),
            ("Ten views at test time", ("ten-views-gain-top1", "ten-views-gain-top5")),
            ("Dropout (overfitting)", ("dropout-overfit",)),
            ("Depth: conv3 / conv4 / conv5", ("without-conv3-top1", "without-conv4-top1", "without-conv5-top1")),
        ),
    ),
    ("The net", "Computed, without a run", (("Parameters / neurons", ("parameters", "neurons")),)),
)  # fmt: skip


@dataclass(frozen=True)
class SummaryRow:
    """One row of the first table: a claim, or a few that the paper states together."""

    label: str
    claims: tuple[Claim, ...]

    @property
    def needs_run(self) -> bool:
        """Whether the claims are about runs, not about the net alone."""
        return any(map(_needs_run, self.claims))

    @property
    def paper(self) -> list[str]:
        """The paper's value of each claim, without units."""
        return [_bare(claim.paper) for claim in self.claims]

    @property
    def authors(self) -> list[str]:
        """What the authors' program reached, to two decimals; a dash without notes."""
        values = [claim.target.authors for claim in self.claims]
        return ["—" if each is None else number(each, None if each == int(each) else 2) for each in values]

    @property
    def here(self) -> list[str]:
        """The measured values with their intervals; a dash without any that says something about the claim."""
        return [(_bare(claim.measured) if _is_evidence(claim) else "") or "—" for claim in self.claims]

    @property
    def sample(self) -> str:
        """Number of seeds or images of what was measured here."""
        return _joined(claim.sample for claim in self.claims if _is_evidence(claim))

    @property
    def verdicts(self) -> list[Claim]:
        """One claim for each distinct verdict and direction."""
        return list({(claim.key, claim.direction): claim for claim in self.claims}.values())

    @property
    def where(self) -> str:
        """Where an effect comes from that is not comparable."""
        return _joined(claim.where for claim in self.claims if _is_evidence(claim))


@dataclass(frozen=True)
class SummaryGroup:
    """Rows of the first table under a common heading."""

    title: str
    note: str
    rows: tuple[SummaryRow, ...]


def summary_groups(claims: Sequence[Claim]) -> list[SummaryGroup]:
    """Return the rows of the first table from all claims."""
    by_id = {claim.target.id: claim for claim in claims}
    return [
        SummaryGroup(title, note, tuple(SummaryRow(label, tuple(by_id[each] for each in ids)) for label, ids in rows))
        for title, note, rows in LAYOUT
    ]


def _is_evidence(claim: Claim) -> bool:
    """Return whether a measurement belongs beside the paper's value.

    A level on other images says nothing about the paper's, and would be read as if it did; the direction of an effect
    there says something.
    """
    return claim.verdict.verdict != NOT_COMPARABLE or claim.target.no_effect is not None


def _bare(text: str) -> str:
    return text.replace("%", "").removesuffix(" points")


def _joined(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, words)))


@dataclass(frozen=True)
class Finding:
    """A sentence about the claims, the claims that it names, and the command that measures what it lacks.

    Attributes:
        title: what it is about, in a few words.
        text: the sentence, followed by the names of the claims if there are any.
        claims: the claims that it names.
        command: the command that measures what is lacking; empty if nothing is.
    """

    title: str
    text: str
    claims: tuple[Claim, ...] = ()
    command: str = ""


def findings(claims: Sequence[Claim]) -> list[Finding]:
    """Return in words what was reproduced, what is contradicted, what points the same way, and what is lacking."""
    found = (
        _reproduced(claims),
        _contradicted(claims),
        _elsewhere(claims, AGREES, "Points the same way", "the paper’s direction"),
        _elsewhere(claims, DISAGREES, "Points the other way", "the opposite direction"),
        _lacking(claims),
    )
    return [each for each in found if each]


def _reproduced(claims: Sequence[Claim]) -> Finding:
    computed = [claim for claim in claims if not _needs_run(claim)]
    hold = sum(claim.verdict.verdict == MATCH for claim in computed)
    total, matches = len(claims) - len(computed), _with(claims, MATCH)
    text = f"{hold} of the {len(computed)} claims that need no run hold"
    if hold < len(computed):
        text += f"; the other {len(computed) - hold} contradict other statements of the paper"
    if not matches:
        return Finding("Reproduced", f"{text}. Of the {total} that need a run, none is reproduced yet.")
    verb = "matches" if len(matches) == 1 else "match"
    text += f". Of the {total} that need a run, {len(matches)} {verb} on the paper’s data and scale:"
    return Finding("Reproduced", text, matches)


def _contradicted(claims: Sequence[Claim]) -> Finding | None:
    contradicted = _with(claims, MISMATCH)
    if not contradicted:
        return None
    return Finding("Contradicted", "On the paper’s data and scale the measurement differs:", contradicted)


def _elsewhere(claims: Sequence[Claim], direction: str, title: str, words: str) -> Finding | None:
    """Return the effects on other images or at a smaller scale that have this direction."""
    found = _with(claims, NOT_COMPARABLE, direction)
    if not found:
        return None
    count = f"{len(found)} effect{'s have' if len(found) > 1 else ' has'}"
    return Finding(title, f"Not comparable, on other images or at a smaller scale, {count} {words}:", found)


def _lacking(claims: Sequence[Claim]) -> Finding | None:
    lacking = [claim for claim in claims if _is_lacking(claim)]
    if not lacking:
        return None
    undecided = sum(claim.verdict.verdict == MISSING and claim.verdict.direction == UNDECIDED for claim in lacking)
    count = f"{len(lacking)} claims are" if len(lacking) > 1 else "1 claim is"
    text = f"{count} not decided on the paper’s data and scale"
    if undecided:
        text += f", {undecided} of them measured there but undecided"
    experiments = missing_experiments(claims)
    experiment = experiments[0].experiment if len(experiments) == 1 else ALL
    return Finding("Lacking", f"{text}. This command measures what is lacking:", command=experiment_command(experiment))


def _needs_run(claim: Claim) -> bool:
    return claim.target.kind != "invariant"


def _is_lacking(claim: Claim) -> bool:
    return _needs_run(claim) and claim.verdict.verdict in (MISSING, NOT_COMPARABLE)


def _with(claims: Iterable[Claim], verdict: str, direction: str = "") -> tuple[Claim, ...]:
    """Return the claims that need a run and have this verdict, and this direction if one is given."""
    return tuple(
        claim
        for claim in claims
        if _needs_run(claim) and claim.verdict.verdict == verdict and direction in ("", claim.direction)
    )


@dataclass(frozen=True)
class MissingExperiment:
    """An experiment of which claims are not decided yet, with the command that runs it."""

    experiment: Experiment
    claims: tuple[Claim, ...]

    @property
    def command(self) -> str:
        """The command at the paper's scale."""
        return experiment_command(self.experiment)


def missing_experiments(claims: Sequence[Claim]) -> list[MissingExperiment]:
    """Return the experiments that would measure what is not decided, in the paper's order."""
    lacking: dict[str, list[Claim]] = {}
    for claim in claims:
        if _is_lacking(claim) and (experiment := experiment_of(claim.target)):
            lacking.setdefault(experiment.name, []).append(claim)
    return [MissingExperiment(each, tuple(lacking[each.name])) for each in PARTS if each.name in lacking]


@dataclass(frozen=True)
class MapRow:
    """The claims of one section of the paper."""

    section: str
    name: str
    claims: tuple[Claim, ...]


def claims_map(claims: Sequence[Claim]) -> list[MapRow]:
    """Return the claims by section, each section with its name."""
    rows: dict[str, list[Claim]] = {}
    for claim in claims:
        rows.setdefault(claim.target.section, []).append(claim)
    return [MapRow(section, SECTIONS.get(section, ""), tuple(each)) for section, each in rows.items()]


def strict_note(claims: Sequence[Claim]) -> str:
    """Return what a strict check makes of the mismatches."""
    mismatches = [claim.verdict for claim in claims if claim.verdict.verdict == MISMATCH]
    known = [each for each in mismatches if not each.fails_strict]
    if not mismatches:
        return "No claim is contradicted."
    which = "All" if len(known) == len(mismatches) else f"{len(known)} of the"
    return (
        f"{which} {len(mismatches)} mismatches are contradictions within the paper, explained with the "
        f"claim; a strict check does not count them."
    )
