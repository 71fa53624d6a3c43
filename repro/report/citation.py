"""How to cite the paper and this toolkit, in BibTeX; as in CITATION.cff."""

from __future__ import annotations

import repro

PAPER = """@inproceedings{krizhevsky2012imagenet,
  title     = {{ImageNet} Classification with Deep Convolutional Neural Networks},
  author    = {Krizhevsky, Alex and Sutskever, Ilya and Hinton, Geoffrey E.},
  booktitle = {Advances in Neural Information Processing Systems 25},
  pages     = {1097--1105},
  year      = {2012}
}"""


def toolkit() -> str:
    """Return the entry of this version of the toolkit."""
    return f"""@software{{repro,
  title   = {{repro: a reproduction of the AlexNet paper}},
  author  = {{{{the repro maintainers}}}},
  version = {{{repro.__version__}}},
  year    = {{2026}}
}}"""
