"""The heads that are imported: one small file for each family, found by signature."""

from typing import TYPE_CHECKING

from edge_mil.renamed import renamed
from edge_mil_export.architectures import (
    acmil,
    aem,
    amlab,
    clam,
    dsmil,
    dtfd,
    hopfield,
    ilra,
    ins,
    mambamil,
    mambamil_sr,
    mean_max,
    mhim,
    mil_fc,
    millab,
    otsurv,
    rrtmil,
    sc_mil,
    transmil,
    weakstil,
    wikg,
)
from edge_mil_export.architectures.head import ACTIVATION, AttentionHead, Head, Option, Options
from edge_mil_export.architectures.registry import architecture, build_head, names
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

FAMILIES = (
    acmil,
    aem,
    amlab,
    clam,
    hopfield,
    ilra,
    dsmil,
    dtfd,
    ins,
    mambamil,
    mambamil_sr,
    mean_max,
    mhim,
    mil_fc,
    millab,
    otsurv,
    rrtmil,
    sc_mil,
    transmil,
    weakstil,
    wikg,
)
"""Importing a family registers its heads."""

if not TYPE_CHECKING:  # else mypy would accept any name
    __getattr__ = renamed(__name__, {"Layout": "StateDictReader"})
