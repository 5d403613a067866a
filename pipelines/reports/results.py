"""Tables of results: what `.table()` gives, by type of the result."""

from cache.runs import RunRecord
from cache.shown import TABLES
from pipelines.evaluation.predict import Predictions
from pipelines.evaluation.result import Evaluation
from pipelines.extract.report import StreamReports
from pipelines.reports.extraction import report_table
from pipelines.reports.predictions import prediction_tables
from pipelines.reports.runs import evaluation_table, sweep_table, train_table
from pipelines.training.sweep import Sweep

SHOWN = 20  # predictions in a notebook

TABLES[RunRecord] = lambda run: train_table([run])
TABLES[Sweep] = lambda found: sweep_table([trial.runs for trial in found.trials], found.metric)
TABLES[Evaluation] = lambda found: evaluation_table([found])
TABLES[Predictions] = lambda found: prediction_tables(found, SHOWN)[0]
TABLES[StreamReports] = lambda found: report_table({found.dataset: found})
