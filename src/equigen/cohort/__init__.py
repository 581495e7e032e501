"""Cohorts: a user's table and images, by roles, checked, split by patient and counted."""

from equigen.cohort.cohort import Cohort
from equigen.cohort.images import SUFFIXES, load_images, read_image, square
from equigen.cohort.levels import AttributeSpec, LabelSpec
from equigen.cohort.manifest import Manifest
from equigen.cohort.packing import pack
from equigen.cohort.parse import parse_spec, read_yaml
from equigen.cohort.spec import SPLITS, CohortSpec
from equigen.cohort.summary import SMALL, count_cells, print_counts
from equigen.cohort.trained_on import carry_trained_on, check_unseen, read_trained_on, write_trained_on

__all__ = [
    "SMALL",
    "SPLITS",
    "SUFFIXES",
    "AttributeSpec",
    "Cohort",
    "CohortSpec",
    "LabelSpec",
    "Manifest",
    "carry_trained_on",
    "check_unseen",
    "count_cells",
    "load_images",
    "pack",
    "parse_spec",
    "print_counts",
    "read_image",
    "read_trained_on",
    "read_yaml",
    "square",
    "write_trained_on",
]
