"""Reports from tables: one self-contained HTML page, its JSON, a model card and a data set card.

The package and its function share the name ``equigen.report``: once the package is imported, Python binds that name
to this module, so the module itself can be called as ``report(quality, fairness, path=...)``.
"""

from .calibration.findings import calibration_sentences as calibration_sentences
from .calibration.page import write_calibration_page as write_calibration_page
from .comparison.page import CalibrationSummary as CalibrationSummary
from .comparison.page import write_comparison_page as write_comparison_page
from .images import ClosePairs as ClosePairs
from .images import Grid as Grid
from .metrics import METRICS as METRICS
from .pairs.findings import pairs_sentences as pairs_sentences
from .pairs.page import write_pairs_page as write_pairs_page
from .study.memorisation import pair_caption as pair_caption
from .study.page import report as report
from .study.page import write_report as write_report
from .study.screening import screening_sentences as screening_sentences
