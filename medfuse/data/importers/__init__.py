"""Importers of public datasets, one a file: a folder as published in, studies out."""

from collections.abc import Mapping

from medfuse.data.importers.coswara import COSWARA
from medfuse.data.importers.covid_cxr import COVID_CXR
from medfuse.data.importers.egd_cxr import EGD_CXR
from medfuse.data.importers.folder import FOLDER
from medfuse.data.importers.medmnist import MEDMNIST
from medfuse.data.importers.mimic_cxr import MIMIC_CXR
from medfuse.data.importers.open_i import OPEN_I
from medfuse.data.importers.reflacx import REFLACX
from medfuse.data.importers.source import Importer
from medfuse.data.importers.svd import SVD
from medfuse.data.importers.table import TABLE

IMPORTERS: Mapping[str, Importer] = {
    "coswara": COSWARA,
    "covid-cxr": COVID_CXR,
    "egd-cxr": EGD_CXR,
    "folder": FOLDER,
    "medmnist": MEDMNIST,
    "mimic-cxr": MIMIC_CXR,
    "open-i": OPEN_I,
    "reflacx": REFLACX,
    "svd": SVD,
    "table": TABLE,
}
"""Every source that can be imported, by the name used on the command line."""
