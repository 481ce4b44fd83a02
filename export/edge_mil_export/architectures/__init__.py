"""Rebuild published heads from their state dicts: one small file for each family.

A state dict goes in, a `Head` in torch comes out, cut where the bag ends. `registry` holds the
signatures and `detection` compares them with a file's keys; `options` asks for what the keys cannot
tell; `building` builds the class with a `StateDictReader` (`state_dict_reader`), which hands out
layers and refuses keys that are left over. `head` is the base class, with the parts that several
families share, `layers` and `nystrom` are shared layers. `unsupported` lists files that are
recognised and refused. `millab`, `torchmil`, `stamp` and `slide_encoders` hold the heads of one
code base or one kind each; every other file is one family.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from edge_mil.renamed import renamed
from edge_mil_export.architectures.building import build_head
from edge_mil_export.architectures.head import AttentionHead, Head
from edge_mil_export.architectures.options import ACTIVATION, Option, Options
from edge_mil_export.architectures.registry import architecture, names
from edge_mil_export.architectures.state_dict_reader import StateDictReader

__all__ = [
    "ACTIVATION",
    "AttentionHead",
    "Head",
    "Option",
    "Options",
    "StateDictReader",
    "architecture",
    "build_head",
    "names",
]

# Importing a family registers its heads, so that a new one is a new file and no more.
for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

if not TYPE_CHECKING:  # else mypy would accept any name
    __getattr__ = renamed(__name__, {"Layout": "StateDictReader"})
